"""A client of the Open Inference Protocol for the command line: arrays in, arrays out, failures as sentences."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import grpc
import numpy as np
import numpy.typing as npt

from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_contract.tensors import DType
from enginesmith_contract.text import one_line

__all__ = [
    "Answer",
    "Array",
    "ModelDescription",
    "ProtocolClient",
    "ServerCallError",
    "TensorDescription",
    "infer_request",
]

Array = npt.NDArray[np.generic]

_SERVICE: Final = "/inference.GRPCInferenceService"
_MAX_MESSAGE_BYTES: Final = (1 << 31) - 1
_LENGTH_BYTES: Final = 4


class ServerCallError(EnginesmithError):
    """No server answers, or it refused a call; the message has its error."""

    exit_code = ExitCode.CALL_FAILED
    default_reason = "ServerCallFailed"


@dataclass(frozen=True, kw_only=True)
class TensorDescription:
    """An input or output as the server declares it; -1 in `shape` is open. `ranges` holds its notes on shapes."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    ranges: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """A server's metadata of a model; `parameters` has the engine key, the target and others."""

    name: str
    platform: str
    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]
    parameters: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One inference's outputs in the server's order, and the response's parameters."""

    outputs: Mapping[str, Array]
    parameters: Mapping[str, str]


class ProtocolClient:
    """One connection to a server; a context manager that closes it.

    Args:
        address: host:port.
        timeout_seconds: of each call.
        ca: authority of the server's certificate, in PEM; None: the server speaks plaintext.
        identity: certificate and key of the client, in PEM; None: the server asks for none.
        token: that calls send; None: none.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_seconds: float,
        ca: bytes | None = None,
        identity: tuple[bytes, bytes] | None = None,
        token: str | None = None,
    ) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        limits = ("grpc.max_receive_message_length", "grpc.max_send_message_length")
        options = [(limit, _MAX_MESSAGE_BYTES) for limit in limits]
        if ca is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            certificate, key = identity or (None, None)
            self._channel = grpc.secure_channel(
                address, grpc.ssl_channel_credentials(ca, key, certificate), options=options
            )

    def describe(self, model: str) -> ModelDescription:
        """Return what the server says of `model`.

        Raises:
            ServerCallError: no server, or no such model; then the models that there are.
        """
        found = self._call("ModelMetadata", pb.ModelMetadataRequest(name=model), pb.ModelMetadataResponse)
        return ModelDescription(
            name=found.name,
            platform=found.platform,
            inputs=_tensors(found.inputs),
            outputs=_tensors(found.outputs),
            parameters=_parameters(found.parameters),
        )

    def infer(self, model: str, inputs: Mapping[str, Array], dtypes: Mapping[str, DType]) -> Answer:
        """Run one inference.

        Args:
            model: its name.
            inputs: one array for each input.
            dtypes: of each input, as the server declares it (numpy cannot tell BF16 from UINT16).

        Raises:
            ServerCallError: the server is absent, or refused.
        """
        request = infer_request(model, inputs, dtypes)
        response = self._call("ModelInfer", request, pb.ModelInferResponse)
        outputs = {
            output.name: _array_from_raw(raw, DType(output.datatype), tuple(output.shape))
            for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
        }
        return Answer(outputs=outputs, parameters=_parameters(response.parameters))

    def _call(self, name: str, request: Any, answer: Any) -> Any:  # noqa: ANN401 - generated messages share no useful type
        rpc = self._channel.unary_unary(
            f"{_SERVICE}/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            return rpc(request, timeout=self._timeout_seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._translated(error) from error

    def _translated(self, error: Any) -> ServerCallError:  # noqa: ANN401 - grpc ships no types
        code = error.code()
        details = one_line(str(error.details() or ""))
        match code:
            case grpc.StatusCode.UNAVAILABLE:
                return ServerCallError(
                    "no server answers",
                    where=self._address,
                    why="connection refused" if "refused" in details.lower() else details,
                    remedy="start one with `enginesmith up engine.yaml`, or name another with --address",
                    reason="ServerAbsent",
                    retry=True,
                )
            case grpc.StatusCode.NOT_FOUND:
                return ServerCallError("the server refused", where=self._address, why=details, reason="ModelNotFound")
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return ServerCallError(
                    f"no response within {self._timeout_seconds:g} s",
                    where=self._address,
                    remedy="give more with --timeout",
                    reason="ServerTimedOut",
                    retry=True,
                )
            case _:
                return ServerCallError("the server refused", where=self._address, why=f"{code.name}: {details}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()


def infer_request(model: str, inputs: Mapping[str, Array], dtypes: Mapping[str, DType]) -> pb.ModelInferRequest:
    """Return the request for one inference; the arguments are those of `ProtocolClient.infer`."""
    request = pb.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=dtypes[name].value, shape=array.shape)
        request.raw_input_contents.append(_raw_from_array(array, dtypes[name]))
    return request


def _tensors(found: Iterable[pb.ModelMetadataResponse.TensorMetadata]) -> tuple[TensorDescription, ...]:
    return tuple(
        TensorDescription(
            name=tensor.name,
            dtype=DType(tensor.datatype),
            shape=tuple(tensor.shape),
            ranges=_parameters(tensor.parameters),
        )
        for tensor in found
    )


def _parameters(found: Mapping[str, pb.InferParameter]) -> dict[str, str]:
    values = ((name, value, value.WhichOneof("parameter_choice")) for name, value in found.items())
    return {name: str(getattr(value, field)) for name, value, field in values if field}


def _raw_from_array(array: Array, dtype: DType) -> bytes:
    if dtype is not DType.BYTES:
        return np.ascontiguousarray(array).tobytes()
    return b"".join(len(item).to_bytes(_LENGTH_BYTES, "little") + item for item in array.ravel().tolist())


def _array_from_raw(raw: bytes, dtype: DType, shape: tuple[int, ...]) -> Array:
    if dtype is not DType.BYTES:
        return np.frombuffer(raw, dtype.numpy).reshape(shape)
    items: list[bytes] = []
    start = 0
    while start < len(raw):
        size = int.from_bytes(raw[start : start + _LENGTH_BYTES], "little")
        start += _LENGTH_BYTES
        items.append(raw[start : start + size])
        start += size
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array.reshape(shape)
