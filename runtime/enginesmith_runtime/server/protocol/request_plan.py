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
from enginesmith_runtime.engines.interface import Array, DeviceArray
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.model import LoadedModel
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
    encode_tensor,
    fill_typed,
    on_host,
    string_parameters,
)
from enginesmith_runtime.server.protocol.tensor_place import TensorPlace, read_place
from enginesmith_runtime.server.protocol.wire import join_raw_outputs

__all__ = ["PlanCache", "RequestPlan"]

_MICROSECONDS: Final = 1e-6

_CACHED_PLANS: Final = 512
_CACHED_HEAD_BYTES: Final = 2048
"""Bounds of the cache: at most a few megabytes, whatever clients send."""

_CLASSIFICATION: Final = "classification"
_TIMINGS: Final = "timings"


class RequestPlan:
    """A checked request without its tensors. Safe from any thread.

    Attributes:
        timeout_seconds: how long the request may wait for an instance; None: as long as its deadline.
        profile: index of the engine's profile.
        batch: inferences in the request.
        repeatable: whether another request has the same plan if all its bytes except its raw contents are the same.
        output_places: outputs that are left in shared memory, by name.
        wants_timings: whether the answer says how long the request took.
    """

    def __init__(self, request: ModelInferRequest, model: LoadedModel, *, raw: bool, streamed: bool) -> None:
        self.model = model
        self.timeout_seconds = _timeout_seconds(request)
        self.wants_timings = _wants_timings(request)
        self.headers: tuple[InputHeader, ...] = check_headers(request, model.inputs)
        self._in_message = tuple(header for header in self.headers if header.place is None)
        self.repeatable = raw or not self._in_message
        self._request = None if self.repeatable else request
        refuse_typed(request, self.headers, raw=raw)
        self.profile = model.profiles.choose({header.spec.name: header.shape for header in self.headers})
        self._outputs = _requested_outputs(request, model)
        self.output_places = _output_places(request)
        self.output_names = [spec.name for spec in self._outputs]
        self.batch = self.headers[0].shape[0] if model.max_batch_size and self.headers else 1
        # An answer comes as the request did, unless a datatype has no typed contents.
        self._typed = (
            not self.repeatable and not self.output_places and all(spec.dtype in TYPED_FIELDS for spec in self._outputs)
        )
        self._id = request.id
        self._streamed = streamed
        self._heads: dict[tuple[tuple[int | str, ...], ...], bytes] = {}

    @property
    def shares_memory(self) -> bool:
        """Whether a tensor lies in shared memory."""
        return bool(self.output_places) or len(self._in_message) < len(self.headers)

    def read_inputs(self, raw: Sequence[memoryview]) -> dict[str, Array]:
        """Return the inputs that do not lie in shared memory, by name.

        Raises:
            ProtocolError: INVALID_ARGUMENT; the contents do not fit what the request says of them.
        """
        if self._request is not None:
            return read_typed(self._request, self.headers)
        return read_raw(self._in_message, raw)

    def profile_of_values(self, inputs: Mapping[str, Array | DeviceArray]) -> int:
        """Return the index of the profile that takes the elements of the inputs that hold sizes.

        Raises:
            ProtocolError: INVALID_ARGUMENT naming the input, the element and its value.
        """
        values: dict[str, list[int]] = {}
        for name in self.model.profiles.value_inputs:
            array = inputs[name]
            if isinstance(array, DeviceArray):
                raise ProtocolError(
                    Code.INVALID_ARGUMENT,
                    f"input '{name}' holds sizes, which the server reads; send it in the request or in system shared "
                    "memory",
                )
            values[name] = array.ravel().tolist()
        shapes = {header.spec.name: header.shape for header in self.headers}
        return self.model.profiles.choose_by_values(shapes, values)

    def encode(
        self, outputs: Mapping[str, Array | DeviceArray], left: Mapping[str, int], timings: Mapping[str, int]
    ) -> bytes:
        """Return the serialised ModelInferResponse.

        Args:
            outputs: all of them.
            left: sizes in bytes of those that were left in shared memory; they take no room in the answer.
            timings: further parameters of the answer, of this request alone.
        """
        if self._typed:
            response = self._response(outputs, left)
            fill_typed(response, outputs)
            return response.SerializeToString() + _timing_parameters(timings)
        shapes = (*[outputs[name].shape for name in self.output_names], *left.items())
        head = self._heads.get(shapes)
        if head is None:
            head = self._response(outputs, left).SerializeToString()
            # One entry: a plan's shapes are fixed, so an output's shape varies only where it depends on the values.
            self._heads = {shapes: head}
        # One content for each output, in their order: what lies elsewhere has an empty one.
        contents = [
            b"" if spec.name in left else encode_tensor(on_host(outputs[spec.name]), spec) for spec in self._outputs
        ]
        return join_raw_outputs(head + _timing_parameters(timings), contents)

    def _response(self, outputs: Mapping[str, Array | DeviceArray], left: Mapping[str, int]) -> ModelInferResponse:
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
        for tensor in response.outputs:
            if tensor.name in left:
                for name, value in self.output_places[tensor.name].parameters(left[tensor.name]).items():
                    tensor.parameters[name].CopyFrom(value)
        return response


class PlanCache:
    """Plans of repeated requests. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: dict[bytes, RequestPlan] = {}

    def find(self, head: bytes) -> RequestPlan | None:
        """Return the plan of a request that has these bytes in addition to its raw contents."""
        # Without raw contents these bytes are the whole request, and hashing megabytes would be for nothing.
        return self._plans.get(head) if len(head) <= _CACHED_HEAD_BYTES else None

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
        if _CLASSIFICATION in output.parameters:
            raise ProtocolError(
                Code.UNIMPLEMENTED,
                f"output '{output.name}': classification is not offered; ask for the tensor and sort it in the client",
            )
        wanted[output.name] = spec
    return tuple(wanted.values())


def _output_places(request: ModelInferRequest) -> dict[str, TensorPlace]:
    places = {output.name: read_place(f"output '{output.name}'", output.parameters) for output in request.outputs}
    return {name: place for name, place in places.items() if place is not None}


def _timing_parameters(timings: Mapping[str, int]) -> bytes:
    """Return parameters to append to a serialised answer: protobuf merges a field that comes in several parts."""
    if not timings:
        return b""
    parameters = {name: InferParameter(int64_param=value) for name, value in timings.items()}
    return ModelInferResponse(parameters=parameters).SerializeToString()


def _wants_timings(request: ModelInferRequest) -> bool:
    wanted = request.parameters.get(_TIMINGS)
    if wanted is None:
        return False
    if wanted.WhichOneof("parameter_choice") != "bool_param":
        raise ProtocolError(Code.INVALID_ARGUMENT, f"parameter '{_TIMINGS}' is not a bool; send true, or leave it out")
    return wanted.bool_param


def _timeout_seconds(request: ModelInferRequest) -> float | None:
    """Return the parameter `timeout`. `priority` and the sequence parameters are taken and change nothing here."""
    timeout = request.parameters.get("timeout")
    if timeout is None:
        return None
    microseconds = timeout.int64_param or timeout.uint64_param
    if microseconds < 0:
        raise ProtocolError(Code.INVALID_ARGUMENT, f"parameter 'timeout' is {microseconds} microseconds")
    return microseconds * _MICROSECONDS if microseconds else None
