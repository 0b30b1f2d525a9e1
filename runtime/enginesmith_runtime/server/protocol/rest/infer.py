"""Inference over HTTP: converts the JSON to a request of gRPC, and writes the response as JSON and binary data."""

import json
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

from typing_extensions import override

from enginesmith_contract.protos.inference_pb2 import InferParameter, ModelInferRequest
from enginesmith_runtime.engines.interface import Array, DeviceArray
from enginesmith_runtime.server.errors import ProtocolError
from enginesmith_runtime.server.model import LoadedModel
from enginesmith_runtime.server.protocol.infer import Inference
from enginesmith_runtime.server.protocol.request_plan import RequestPlan
from enginesmith_runtime.server.protocol.rest.documents import (
    Document,
    parameter,
    parameter_value,
    read_document,
    take,
)
from enginesmith_runtime.server.protocol.rest.json_tensors import has_json, read_data, write_data
from enginesmith_runtime.server.protocol.tensor_encoding import encode_tensor, on_host
from enginesmith_runtime.server.protocol.tensor_headers import InputHeader, invalid
from enginesmith_runtime.server.transport.http.interface import HttpAnswer, HttpRequest
from enginesmith_runtime.server.transport.interface import Answer, CallContext

__all__ = ["JSON_LENGTH", "infer"]

JSON_LENGTH = "inference-header-content-length"
"""The header with the length of the JSON in a body. Binary data follows the JSON."""

_BINARY_SIZE, _BINARY, _BINARY_ALL = "binary_data_size", "binary_data", "binary_data_output"


def infer(
    inference: Inference,
    request: HttpRequest,
    variables: Mapping[str, str],
    context: CallContext,
    reply: Callable[[HttpAnswer | ProtocolError], None],
) -> None:
    """Answer POST v2/models/{model}/infer.

    Raises:
        ProtocolError: the request was refused before it was queued.
    """
    document, binary = _split(request)
    message = _message(document, variables)
    plan = inference.plan(message, lambda model: RestPlan(message, model, document))
    raw = _contents(document, plan.headers, binary)

    def answer(outcome: Answer | ProtocolError) -> None:
        reply(plan.answer(outcome.body) if isinstance(outcome, Answer) else outcome)

    inference.submit(plan, partial(plan.read_inputs, raw), context, answer)


class RestPlan(RequestPlan):
    """The plan of one request with a JSON response. Outputs are in the JSON or follow it as binary data.

    Args:
        document: JSON of the request.

    Raises:
        ProtocolError: INVALID_ARGUMENT as for `RequestPlan`, or if JSON cannot represent a requested output.
    """

    def __init__(self, request: ModelInferRequest, model: LoadedModel, document: Document) -> None:
        super().__init__(request, model, raw=True, streamed=False)
        usual = take(take(document, "parameters", dict), _BINARY_ALL, bool)
        asked = {
            output["name"]: take(take(output, "parameters", dict), _BINARY, bool)
            for output in take(document, "outputs", list)
            if _BINARY in (output.get("parameters") or {})
        }
        self._binary = frozenset(name for name in self.output_names if asked.get(name, usual))
        for spec in self._outputs:
            if not has_json(spec.dtype) and spec.name not in self._binary and spec.name not in self.output_places:
                raise invalid(
                    f"output '{spec.name}': {spec.dtype} can only be sent as binary data; ask for it with the "
                    "parameter "
                    f"'{_BINARY}'"
                )
        self._json_length = 0

    @override
    def encode(
        self,
        outputs: Mapping[str, Array | DeviceArray],
        left: Mapping[str, int],
        timings: Mapping[str, int],
        *,
        id_field: bytes = b"",
        outputs_last: bool = False,
    ) -> bytes:
        contents: list[bytes | memoryview] = []
        described = []
        for spec in self._outputs:
            tensor = outputs[spec.name]
            entry: Document = {"name": spec.name, "datatype": spec.dtype.value, "shape": list(tensor.shape)}
            if spec.name in left:
                place = self.output_places[spec.name].parameters(left[spec.name])
                entry["parameters"] = {name: parameter_value(value) for name, value in place.items()}
            elif spec.name in self._binary:
                content = encode_tensor(on_host(tensor), spec)
                entry["parameters"] = {_BINARY_SIZE: len(content)}
                contents.append(content)
            else:
                entry["data"] = write_data(on_host(tensor), spec)
            described.append(entry)
        document: Document = {
            "model_name": self.model.name,
            "model_version": self.model.version,
            **({"id": self._id} if self._id else {}),
            "parameters": {"engine": self.model.manifest.engine_key, "target": self.model.target, **timings},
            "outputs": described,
        }
        head = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        self._json_length = len(head)
        return b"".join((head, *contents))

    def answer(self, body: bytes) -> HttpAnswer:
        """Return the HTTP response for a body from `encode`."""
        if self._json_length == len(body):
            return HttpAnswer(200, body, (("content-type", "application/json"),))
        length = (JSON_LENGTH, str(self._json_length))
        return HttpAnswer(200, body, (("content-type", "application/octet-stream"), length))


def _split(request: HttpRequest) -> tuple[Document, memoryview]:
    """Return the JSON of the request and the binary data after it."""
    body, said = memoryview(request.body), request.headers.get(JSON_LENGTH)
    if said is None:
        return read_document(body), body[:0]
    if not said.isascii() or not said.isdigit() or len(said) > len(str(2**63)) or int(said) > len(body):
        raise invalid(f"header {JSON_LENGTH} is '{said[:40]}', and the body has {len(body)} bytes")
    return read_document(body[: int(said)]), body[int(said) :]


def _message(document: Document, variables: Mapping[str, str]) -> ModelInferRequest:
    message = ModelInferRequest(model_name=variables["model"], model_version=variables.get("version", ""))
    message.id = _text(document, "id", "the request")
    _copy_parameters(document, message.parameters, "the request", _BINARY_ALL)
    for tensor in _tensors(document, "inputs"):
        added = message.inputs.add()
        added.name = _text(tensor, "name", "an input")
        where = f"input '{added.name}'"
        added.datatype = _text(tensor, "datatype", where)
        added.shape.extend(_shape(take(tensor, "shape", list, where), where))
        _copy_parameters(tensor, added.parameters, where, _BINARY_SIZE)
    for tensor in _tensors(document, "outputs"):
        wanted = message.outputs.add()
        wanted.name = _text(tensor, "name", "an output")
        _copy_parameters(tensor, wanted.parameters, f"output '{wanted.name}'", _BINARY)
    return message


def _tensors(document: Document, field: str) -> list[Document]:
    tensors: list[Document] = take(document, field, list)
    for index, tensor in enumerate(tensors):
        if not isinstance(tensor, dict):
            raise invalid(f"the request: element {index} of '{field}' is not an object")
    return tensors


def _text(document: Document, field: str, where: str) -> str:
    text = take(document, field, str, where)
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise invalid(f"{where}: '{field}' is not valid text: half of a surrogate pair")
    return text


def _copy_parameters(document: Document, into: MutableMapping[str, InferParameter], where: str, own: str) -> None:
    """Copy the parameters except the one that only HTTP has."""
    for name, value in take(document, "parameters", dict, where).items():
        if name != own:
            into[_text({"name": name}, "name", where)].CopyFrom(parameter(where, name, value))


def _shape(sizes: list[Any], where: str) -> list[int]:
    for axis, size in enumerate(sizes):
        if type(size) is not int or not -(2**63) <= size < 2**63:
            raise invalid(f"{where}: dimension {axis} of 'shape' is not a 64-bit integer")
    return sizes


def _contents(document: Document, headers: Sequence[InputHeader], binary: memoryview) -> list[memoryview]:
    """Return the raw contents of the inputs that are not in shared memory, in order."""
    raw: list[memoryview] = []
    rest = binary
    for tensor, header in zip(document.get("inputs") or (), headers, strict=True):
        where = f"input '{header.spec.name}'"
        size = (tensor.get("parameters") or {}).get(_BINARY_SIZE)
        found = [name for name, given in (("data", "data" in tensor), (_BINARY_SIZE, size is not None)) if given]
        if len(found) + (header.place is not None) != 1:
            places = [*found, *(["a shared memory region"] if header.place is not None else [])]
            raise invalid(
                f"{where} has {' and also '.join(places) or 'no contents'}; use one of data, binary_data_size "
                "and shared memory"
            )
        if header.place is not None:
            continue
        if size is None:
            raw.append(read_data(tensor["data"], header.spec, header.shape))
            continue
        if type(size) is not int or not 0 <= size <= len(rest):
            raise invalid(f"{where}: {_BINARY_SIZE} is {size}, and {len(rest)} bytes of binary data are left")
        raw.append(rest[:size])
        rest = rest[size:]
    if rest:
        raise invalid(f"{len(rest)} bytes of binary data follow those of the inputs")
    return raw
