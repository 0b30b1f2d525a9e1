"""A client of the Open Inference Protocol in plain grpcio: what a program needs that wants no client library.

Tensors travel as raw little-endian bytes (`raw_input_contents`), which numpy reads without a copy.
"""

from types import TracebackType
from typing import Any, Final, Self

import grpc
import numpy as np
from detect import Float32Array

from enginesmith_contract.protos import inference_pb2 as pb

__all__ = ["Client"]

_SERVICE: Final = "/inference.GRPCInferenceService"
_TIMEOUT_SECONDS: Final = 60.0
_MAX_MESSAGE_BYTES: Final = 64 << 20


class Client:
    """One connection to a server; a context manager that closes it."""

    def __init__(self, address: str) -> None:
        options = [("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES)]
        self._channel = grpc.insecure_channel(address, options=options)

    def infer(self, model: str, tensor: Float32Array) -> Float32Array:
        """Send one FP32 tensor to a model with one input, and return its first output.

        Raises:
            grpc.RpcError: the server is absent, or refused; `details()` says why.
        """
        request = pb.ModelInferRequest(model_name=model, raw_input_contents=[tensor.tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=tensor.shape)
        response = self._call("ModelInfer", request, pb.ModelInferResponse)
        values = np.frombuffer(response.raw_output_contents[0], np.float32)
        return values.reshape(tuple(response.outputs[0].shape))

    def inference_counts(self) -> dict[str, int]:
        """Return for each model how many inferences the server has done since it started."""
        response = self._call("ModelStatistics", pb.ModelStatisticsRequest(), pb.ModelStatisticsResponse)
        return {model.name: model.inference_count for model in response.model_stats}

    def _call(self, name: str, request: Any, answer: Any) -> Any:  # noqa: ANN401 - generated messages share no useful type
        rpc = self._channel.unary_unary(
            f"{_SERVICE}/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return rpc(request, timeout=_TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
