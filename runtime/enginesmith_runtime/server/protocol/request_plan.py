"""The plan of a request: everything except the bytes of its tensors, read and checked.

Everything that later requests of the same kind also need is computed once, here: see `plan_cache`. The head of the
response is also computed once, for each combination of output shapes.
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
from enginesmith_runtime.server.transport.compiling import mypyc_attr
from enginesmith_runtime.server.transport.interface import Content

__all__ = ["RequestPlan"]

_MICROSECONDS: Final = 1e-6

_PLAIN_KINDS: Final = "biuf"
"""Kinds of numpy datatypes whose arrays every library can read as bytes."""

_JOINED_BYTES: Final = 1 << 16
"""Largest last output in bytes for a response in one piece. A larger response is sent in parts, which saves a copy."""

_Template = tuple[list[tuple[int, ...]], list[bytes]]

_CLASSIFICATION: Final = "classification"
_TIMINGS: Final = "timings"


@mypyc_attr(allow_interpreted_subclasses=True)
class RequestPlan:
    """A checked request without its tensors. Safe from any thread.

    Attributes:
        timeout_seconds: Seconds that the request may wait for an instance; None for the time until its deadline.
        profile: Index of the engine's profile.
        priority: Priority level of the request; a lower level runs first.
        batch: Number of inferences in the request.
        pace: Run times of such requests.
        joins: Which requests this one may be joined with.
        repeatable: Whether another request has the same plan if all its bytes except its raw contents are the same.
        output_places: Outputs that are written to shared memory, by name.
        in_message: Inputs that are not in shared memory.
        shares_memory: Whether a tensor is in shared memory.
        reads_values: Whether the profile depends on the elements of an input that holds sizes.
        wants_timings: Whether the response contains the times of the request.
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
        # The response uses the form of the request (raw or typed), unless a datatype has no typed contents.
        self._typed = (
            not self.repeatable and not self.output_places and all(spec.dtype in TYPED_FIELDS for spec in self._outputs)
        )
        self._id = request.id
        self._streamed = streamed
        self._heads: dict[tuple[tuple[int | str, ...], ...], bytes] = {}
        self._template: _Template = ([], [])
        self._row_template: _Template = ([], [])

    def read_inputs(self, raw: Sequence[memoryview]) -> dict[str, Array]:
        """Return the inputs that are not in shared memory, by name.

        Raises:
            ProtocolError: INVALID_ARGUMENT if the contents do not fit the headers.
        """
        if self._request is not None:
            return read_typed(self._request, self.headers)
        return read_raw(self.in_message, raw)

    def cache_key(self, inputs: Mapping[str, Array]) -> bytes:
        """Return a key that identifies the outputs of the request among all requests to the model."""
        parts = [(header.spec.name, header.shape) for header in self.headers]
        digest = sha256(repr((self.output_names, parts)).encode())
        for name, _ in parts:
            digest.update(encode_tensor(inputs[name], self.model.inputs[name]))
        return digest.digest()

    def profile_of_rows(self, rows: int) -> int:
        """Return the index of the profile for a batch with this request. A batch size always has the same profile."""
        found = self._joined_profiles.get(rows)
        if found is None:
            shapes = {header.spec.name: (rows, *header.shape[1:]) for header in self.headers}
            found = self._joined_profiles[rows] = self.model.profiles.choose(shapes)
        return found

    def profile_of_values(self, inputs: Mapping[str, Array | DeviceArray]) -> int:
        """Return the index of the profile that accepts the elements of the inputs that hold sizes.

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
            outputs: All outputs of the request.
            left: Sizes in bytes of the outputs in shared memory. Their contents are not part of the response.
            timings: Additional parameters of this response.
            id_field: Serialised field `id` of the response; if empty, the id of the plan is used.
            outputs_last: Whether large outputs may be separate parts of the response, which are read when it is sent.
        """
        if not left and not timings and not self._typed:
            arrays = [on_host(outputs[name]) for name in self.output_names]
            # Read it once: if shapes depend on values, another thread may replace the template.
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
            # One entry is enough: the input shapes of a plan are fixed, so output shapes vary only if they depend on
            # values.
            self._heads = {shapes: head}
        # Raw contents have one entry for each output, in order. An output in shared memory has an empty one.
        contents = [
            b"" if spec.name in left else encode_tensor(on_host(outputs[spec.name]), spec) for spec in self._outputs
        ]
        return join_raw_outputs(head + id_field + _timing_parameters(timings), contents)

    def encode_rows(self, rows: RowBytes, start: int, id_field: bytes) -> bytes | None:
        """Return the serialised response with this request's rows of a joined run, beginning with row `start`.

        Return None if `encode` has not created such a response before.
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
        """Return the bytes before the contents of each output, and keep them by shape; empty if outputs convert."""
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
            # Each request has one response, so it is the final one. Clients of decoupled models read this parameter.
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
        # `join` accepts any buffer, so arrays need no conversion to bytes.
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
    """Return parameters to append to a serialised response. Protobuf merges a repeated occurrence of the field."""
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
    """Return the parameter `timeout`. The sequence parameters are accepted but have no effect here."""
    microseconds = _integer(request, "timeout")
    if microseconds < 0:
        raise ProtocolError(Code.INVALID_ARGUMENT, f"parameter 'timeout' is {microseconds} microseconds")
    return microseconds * _MICROSECONDS if microseconds else None


def _shorter(own: float | None, usual: float | None) -> float | None:
    """Return the timeout of a request. A client can only shorten the timeout of the server."""
    return own if usual is None else min(own or usual, usual)


def _priority(request: ModelInferRequest) -> int:
    """Return the parameter `priority`, or 0 if it is not set."""
    return max(_integer(request, "priority"), 0)


def _integer(request: ModelInferRequest, name: str) -> int:
    parameter = request.parameters.get(name)
    return 0 if parameter is None else parameter.int64_param or parameter.uint64_param
