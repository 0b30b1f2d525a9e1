"""What a request asks for, once all but its tensors' bytes has been read and checked.

Whatever the next request of the kind needs as well is found out once, here: see `plan_cache`. The same holds for the
head of the answer, by the shapes of the outputs.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, cast

import numpy as np

from enginesmith_contract.protos.inference_pb2 import InferParameter, ModelInferRequest, ModelInferResponse
from enginesmith_contract.tensors import TensorSpec
from enginesmith_runtime.engines.interface import Array, DeviceArray
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.model import LoadedModel
from enginesmith_runtime.server.protocol.joining import JoinTerms, RowBytes, join_terms
from enginesmith_runtime.server.protocol.tensor_decoding import TYPED_FIELDS, read_raw, read_typed, refuse_typed
from enginesmith_runtime.server.protocol.tensor_encoding import (
    describe_outputs,
    encode_tensor,
    fill_typed,
    on_host,
    string_parameters,
)
from enginesmith_runtime.server.protocol.tensor_headers import InputHeader, check_headers
from enginesmith_runtime.server.protocol.tensor_place import TensorPlace, read_place
from enginesmith_runtime.server.protocol.wire import join_raw_outputs, raw_output_prefix
from enginesmith_runtime.server.transport.interface import Content

__all__ = ["RequestPlan"]

_MICROSECONDS: Final = 1e-6

_PLAIN_KINDS: Final = "biuf"
"""Of numpy's datatypes: those whose arrays are their bytes for every library."""

_JOINED_BYTES: Final = 1 << 16
"""Of the last output: an answer with a larger one is sent in parts, which saves a copy."""

_Template = tuple[list[tuple[int, ...]], list[bytes]]

_CLASSIFICATION: Final = "classification"
_TIMINGS: Final = "timings"


class RequestPlan:
    """A checked request without its tensors. Safe from any thread.

    Attributes:
        timeout_seconds: how long the request may wait for an instance; None: as long as its deadline.
        profile: index of the engine's profile.
        priority: at which the request waits for an instance; lower runs first.
        batch: inferences in the request.
        pace: how long such requests run.
        joins: with which requests this one may run as one inference.
        repeatable: whether another request has the same plan if all its bytes except its raw contents are the same.
        output_places: outputs that are left in shared memory, by name.
        in_message: inputs that do not lie in shared memory.
        shares_memory: whether a tensor lies in shared memory.
        reads_values: whether the profile depends on the elements of an input that holds sizes.
        wants_timings: whether the answer says how long the request took.
    """

    def __init__(self, request: ModelInferRequest, model: LoadedModel, *, raw: bool, streamed: bool) -> None:
        self.model = model
        self.timeout_seconds = _shorter(_timeout_seconds(request), model.queue.timeout_seconds)
        self.priority = model.priority(_priority(request))
        self.wants_timings = _wants_timings(request)
        self.headers: tuple[InputHeader, ...] = check_headers(request, model.inputs)
        self.in_message = tuple(header for header in self.headers if header.place is None)
        self.repeatable = raw or not self.in_message
        self._request = None if self.repeatable else request
        refuse_typed(request, self.headers, raw=raw)
        self.profile = model.profiles.choose({header.spec.name: header.shape for header in self.headers})
        self._outputs = _requested_outputs(request, model)
        self.output_places = _output_places(request)
        self.output_names = [spec.name for spec in self._outputs]
        self.batch = self.headers[0].shape[0] if model.max_batch_size and self.headers else 1
        self.pace = model.pace(tuple(header.shape for header in self.headers))
        self.shares_memory = bool(self.output_places) or len(self.in_message) < len(self.headers)
        self.reads_values = bool(model.profiles.value_inputs)
        self.joins = JoinTerms(None, 1) if self.shares_memory else join_terms(model, self.headers, self.output_names)
        self._joined_profiles: dict[int, int] = {}
        # An answer comes as the request did, unless a datatype has no typed contents.
        self._typed = (
            not self.repeatable and not self.output_places and all(spec.dtype in TYPED_FIELDS for spec in self._outputs)
        )
        self._id = request.id
        self._streamed = streamed
        self._heads: dict[tuple[tuple[int | str, ...], ...], bytes] = {}
        self._template: _Template = ([], [])
        self._row_template: _Template = ([], [])

    def read_inputs(self, raw: Sequence[memoryview]) -> dict[str, Array]:
        """Return the inputs that do not lie in shared memory, by name.

        Raises:
            ProtocolError: INVALID_ARGUMENT; the contents do not fit what the request says of them.
        """
        if self._request is not None:
            return read_typed(self._request, self.headers)
        return read_raw(self.in_message, raw)

    def cache_key(self, inputs: Mapping[str, Array]) -> bytes:
        """Return what tells the request's outputs from those of every other request to the model."""
        parts = [(header.spec.name, header.shape) for header in self.headers]
        digest = sha256(repr((self.output_names, parts)).encode())
        for name, _ in parts:
            digest.update(encode_tensor(inputs[name], self.model.inputs[name]))
        return digest.digest()

    def profile_of_rows(self, rows: int) -> int:
        """Return the index of the profile for a batch that this request is in. A size always runs in the same one."""
        found = self._joined_profiles.get(rows)
        if found is None:
            shapes = {header.spec.name: (rows, *header.shape[1:]) for header in self.headers}
            found = self._joined_profiles[rows] = self.model.profiles.choose(shapes)
        return found

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
        self,
        outputs: Mapping[str, Array | DeviceArray],
        left: Mapping[str, int],
        timings: Mapping[str, int],
        *,
        id_field: bytes = b"",
        outputs_last: bool = False,
    ) -> Content:
        """Return the serialised ModelInferResponse.

        Args:
            outputs: all of them.
            left: sizes in bytes of those that were left in shared memory; they take no room in the answer.
            timings: further parameters of the answer, of this request alone.
            id_field: field `id` of the answer, serialised; empty: the plan's own id holds.
            outputs_last: whether large outputs may be parts of the answer, which are read when it is sent.
        """
        if not left and not timings and not self._typed:
            arrays = [on_host(outputs[name]) for name in self.output_names]
            # Read once: where shapes depend on values, another thread may put a template of others in its place.
            known, prefixes = self._template
            if known != [array.shape for array in arrays]:
                prefixes = self._fill_template(outputs, arrays)
            if prefixes:
                if id_field:
                    prefixes = [id_field + prefixes[0], *prefixes[1:]]
                in_parts = outputs_last and arrays[-1].nbytes > _JOINED_BYTES
                return _parts(prefixes, arrays) if in_parts else _join(prefixes, arrays)
        if self._typed:
            response = self._response(outputs, left)
            fill_typed(response, outputs)
            return response.SerializeToString() + id_field + _timing_parameters(timings)
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
        return join_raw_outputs(head + id_field + _timing_parameters(timings), contents)

    def encode_rows(self, rows: RowBytes, start: int, id_field: bytes) -> bytes | None:
        """Return the serialised answer with this request's rows of a joined run, from row `start` on.

        None where `encode` has not made such an answer before.
        """
        tails, prefixes = self._row_template
        if tails != rows.tails:
            return None
        stop = start + self.batch
        parts: list[bytes | memoryview] = [id_field]
        for prefix, (content, size) in zip(prefixes, rows.outputs, strict=True):
            parts += (prefix, content[start * size : stop * size])
        return b"".join(parts)

    def _fill_template(self, outputs: Mapping[str, Array | DeviceArray], arrays: Sequence[Array]) -> list[bytes]:
        """Return what goes before the contents of each output, and keep it for these shapes; empty: they convert."""
        if any(array.dtype.kind not in _PLAIN_KINDS for array in arrays):
            return []
        prefixes = [raw_output_prefix(array.nbytes) for array in arrays]
        prefixes[0] = self._response(outputs, {}).SerializeToString() + prefixes[0]
        self._template = ([array.shape for array in arrays], prefixes)
        if all(array.shape[:1] == (self.batch,) for array in arrays):
            self._row_template = ([array.shape[1:] for array in arrays], prefixes)
        return prefixes

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


def _join(prefixes: Sequence[bytes], arrays: Sequence[Array]) -> bytes:
    parts: list[bytes | memoryview] = []
    for prefix, array in zip(prefixes, arrays, strict=True):
        # An array is its bytes for `join`, which asks for no format.
        parts += (prefix, cast("memoryview", np.ascontiguousarray(array)))
    return b"".join(parts)


def _parts(prefixes: Sequence[bytes], arrays: Sequence[Array]) -> tuple[bytes | memoryview, ...]:
    parts: list[bytes | memoryview] = []
    for prefix, array in zip(prefixes, arrays, strict=True):
        parts += (prefix, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return tuple(parts)


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
    """Return the parameter `timeout`. The sequence parameters are taken and change nothing here."""
    microseconds = _integer(request, "timeout")
    if microseconds < 0:
        raise ProtocolError(Code.INVALID_ARGUMENT, f"parameter 'timeout' is {microseconds} microseconds")
    return microseconds * _MICROSECONDS if microseconds else None


def _shorter(own: float | None, usual: float | None) -> float | None:
    """Return how long a request may wait: a client can be less patient than the server, and not more."""
    return own if usual is None else min(own or usual, usual)


def _priority(request: ModelInferRequest) -> int:
    """Return the parameter `priority`; 0: none."""
    return max(_integer(request, "priority"), 0)


def _integer(request: ModelInferRequest, name: str) -> int:
    parameter = request.parameters.get(name)
    return 0 if parameter is None else parameter.int64_param or parameter.uint64_param
