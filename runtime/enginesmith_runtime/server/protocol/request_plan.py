"""What a request asks for, once all but its tensors' bytes has been read and checked.

Clients repeat themselves: the same model, names, datatypes and shapes with other bytes. So a plan is kept by the bytes
of the request without its raw contents, and a repeated request is neither parsed nor checked again; that is most of
what a small request costs. The same holds for the head of the answer, by the shapes of the outputs.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Final

from enginesmith_contract.protos.inference_pb2 import InferParameter, ModelInferRequest, ModelInferResponse
from enginesmith_contract.tensors import TensorSpec
from enginesmith_runtime.engines.interface import Array
from enginesmith_runtime.server.model import LoadedModel
from enginesmith_runtime.server.protocol.errors import Code, ProtocolError
from enginesmith_runtime.server.protocol.tensor_decoding import (
    TYPED_FIELDS,
    InputHeader,
    check_headers,
    read_raw,
    read_typed,
    refuse_typed,
)
from enginesmith_runtime.server.protocol.tensor_encoding import (
    describe_outputs,
    encode_raw,
    fill_typed,
    string_parameters,
)
from enginesmith_runtime.server.protocol.wire import join_raw_outputs

__all__ = ["PlanCache", "RequestPlan"]

_MICROSECONDS: Final = 1e-6

_CACHED_PLANS: Final = 512
_CACHED_HEAD_BYTES: Final = 2048
"""Bounds of the cache: at most a few megabytes, whatever clients send."""

_REFUSED_OUTPUT_PARAMETERS: Final = (
    ("classification", "classification is not offered; ask for the tensor and sort it in the client"),
    ("shared_memory_region", "shared memory is not offered; the tensor comes with the answer"),
)


class RequestPlan:
    """A checked request without its tensors. Safe from any thread.

    Attributes:
        timeout_seconds: how long the request may wait for an instance; None: as long as its deadline.
        profile: index of the engine's profile.
        batch: inferences in the request.
    """

    def __init__(self, request: ModelInferRequest, model: LoadedModel, *, raw: bool, streamed: bool) -> None:
        self.model = model
        self.timeout_seconds = _timeout_seconds(request)
        self._request = None if raw else request
        if raw:
            refuse_typed(request)
        self._headers: tuple[InputHeader, ...] = check_headers(request, model.inputs)
        self.profile = model.profiles.choose({header.spec.name: header.shape for header in self._headers})
        self._outputs = _requested_outputs(request, model)
        self.output_names = [spec.name for spec in self._outputs]
        self.batch = self._headers[0].shape[0] if model.max_batch_size and self._headers else 1
        # An answer comes as the request did, unless a datatype has no typed contents.
        self._typed = not raw and bool(self._headers) and all(spec.dtype in TYPED_FIELDS for spec in self._outputs)
        self._id = request.id
        self._streamed = streamed
        self._heads: dict[tuple[tuple[int, ...], ...], bytes] = {}

    def read_inputs(self, raw: Sequence[memoryview]) -> dict[str, Array]:
        """Return the inputs by name.

        Raises:
            ProtocolError: INVALID_ARGUMENT; the contents do not fit what the request says of them.
        """
        if self._request is not None:
            return read_typed(self._request, self._headers)
        return read_raw(self._headers, raw)

    def encode(self, outputs: Mapping[str, Array]) -> bytes:
        """Return the serialised ModelInferResponse."""
        if self._typed:
            response = self._response(outputs)
            fill_typed(response, outputs)
            return response.SerializeToString()
        shapes = tuple(outputs[name].shape for name in self.output_names)
        head = self._heads.get(shapes)
        if head is None:
            head = self._response(outputs).SerializeToString()
            # One entry: a plan's shapes are fixed, so an output's shape varies only where it depends on the values.
            self._heads = {shapes: head}
        return join_raw_outputs(head, encode_raw(outputs, self._outputs))

    def _response(self, outputs: Mapping[str, Array]) -> ModelInferResponse:
        response = ModelInferResponse(
            model_name=self.model.name,
            model_version=self.model.version,
            id=self._id,
            parameters=string_parameters({"engine": self.model.manifest.engine_key, "target": self.model.target}),
        )
        if self._streamed:
            # One answer a request, so each is the last; clients of decoupled models look for it.
            response.parameters["triton_final_response"].CopyFrom(InferParameter(bool_param=True))
        describe_outputs(response, outputs, self._outputs)
        return response


class PlanCache:
    """Plans of repeated requests. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: dict[bytes, RequestPlan] = {}

    def find(self, head: bytes) -> RequestPlan | None:
        """Return the plan of a request with these bytes beside its raw contents."""
        return self._plans.get(head)

    def keep(self, head: bytes, plan: RequestPlan) -> None:
        """Keep a plan; the oldest one makes room."""
        if len(head) > _CACHED_HEAD_BYTES:
            return
        with self._lock:
            if len(self._plans) >= _CACHED_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[head] = plan


def _requested_outputs(request: ModelInferRequest, model: LoadedModel) -> tuple[TensorSpec, ...]:
    if not request.outputs:
        return tuple(model.outputs.values())
    wanted: dict[str, TensorSpec] = {}
    for output in request.outputs:
        spec = model.outputs.get(output.name)
        if spec is None:
            known = ", ".join(f"'{name}'" for name in model.outputs)
            raise ProtocolError(
                Code.INVALID_ARGUMENT, f"output '{output.name}' is not one of the model's outputs: {known}"
            )
        if output.name in wanted:
            raise ProtocolError(Code.INVALID_ARGUMENT, f"output '{output.name}' is asked for twice")
        for parameter, remedy in _REFUSED_OUTPUT_PARAMETERS:
            if parameter in output.parameters:
                raise ProtocolError(Code.UNIMPLEMENTED, f"output '{output.name}': {remedy}")
        wanted[output.name] = spec
    return tuple(wanted.values())


def _timeout_seconds(request: ModelInferRequest) -> float | None:
    """Return the parameter `timeout`. `priority` and the sequence parameters are taken and change nothing here."""
    timeout = request.parameters.get("timeout")
    if timeout is None:
        return None
    microseconds = timeout.int64_param or timeout.uint64_param
    if microseconds < 0:
        raise ProtocolError(Code.INVALID_ARGUMENT, f"parameter 'timeout' is {microseconds} microseconds")
    return microseconds * _MICROSECONDS if microseconds else None
