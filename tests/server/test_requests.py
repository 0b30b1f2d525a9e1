"""What a request may say, and what it is told when it says something else. Real engines, no wire."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.interface import Answer

Infer = Callable[[object], Answer | ProtocolError]
MakeRequest = Callable[..., pb.ModelInferRequest]
Wanted = pb.ModelInferRequest.InferRequestedOutputTensor

_VALUES = {
    "BOOL": np.array([True, False]),
    "INT8": np.array([-128, 127], np.int8),
    "INT16": np.array([-32768, 32767], np.int16),
    "INT32": np.array([-(2**31), 2**31 - 1], np.int32),
    "INT64": np.array([-(2**63), 2**63 - 1], np.int64),
    "UINT8": np.array([0, 255], np.uint8),
    "UINT16": np.array([0, 65535], np.uint16),
    "UINT32": np.array([0, 2**32 - 1], np.uint32),
    "UINT64": np.array([0, 2**64 - 1], np.uint64),
    "FP16": np.array([-65504, 0.5], np.float16),
    "FP32": np.array([1e-38, -3.5], np.float32),
    "FP64": np.array([1e-300, -3.5], np.float64),
}
_TYPED = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
_STRINGS = [b"", "zwölf".encode()]
_RAW_STRINGS = b"".join(len(text).to_bytes(4, "little") + text for text in _STRINGS)


def _echo(*, raw: bool, only: str) -> pb.ModelInferRequest:
    """Return a request with every input, whose outputs are `only`."""
    request = pb.ModelInferRequest(model_name="echo", outputs=[Wanted(name=f"out_{only.lower()}")])
    for dtype in ("FP32", "FP16", "FP64", "BOOL", "BYTES", *(d for d in _VALUES if "INT" in d)):
        tensor = request.inputs.add(name=dtype.lower(), datatype=dtype, shape=[2])
        if raw:
            request.raw_input_contents.append(_RAW_STRINGS if dtype == "BYTES" else _VALUES[dtype].tobytes())
        elif dtype == "BYTES":
            tensor.contents.bytes_contents.extend(_STRINGS)
        elif dtype in _TYPED:
            getattr(tensor.contents, _TYPED[dtype]).extend(_VALUES[dtype].tolist())
    return request


def _response(answer: Answer | ProtocolError) -> pb.ModelInferResponse:
    assert isinstance(answer, Answer), answer
    return pb.ModelInferResponse.FromString(answer.body)


@pytest.mark.parametrize("dtype", _VALUES)
def test_raw_values_come_back_bit_for_bit(local_inference: Infer, dtype: str) -> None:
    response = _response(local_inference(_echo(raw=True, only=dtype)))
    assert response.raw_output_contents[0] == _VALUES[dtype].tobytes()
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == (dtype, [2])


def test_raw_strings_come_back(local_inference: Infer) -> None:
    assert _response(local_inference(_echo(raw=True, only="BYTES"))).raw_output_contents[0] == _RAW_STRINGS


def test_fp16_travels_raw_only(local_inference: Infer) -> None:
    answer = local_inference(_echo(raw=False, only="FP32"))
    assert isinstance(answer, ProtocolError)
    assert answer.code is Code.INVALID_ARGUMENT
    assert "'fp16'" in answer.message
    assert "raw_input_contents" in answer.message


def _typed_adder(**contents: list[float]) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="adder")
    for name in ("a", "b"):
        tensor = request.inputs.add(name=name, datatype="FP32", shape=[1, 4])
        for field, values in contents.items():
            getattr(tensor.contents, field).extend(values)
    return request


def test_a_typed_request_gets_a_typed_answer(local_inference: Infer) -> None:
    response = _response(local_inference(_typed_adder(fp32_contents=[1, 2, 3, 4])))
    assert not response.raw_output_contents
    assert list(response.outputs[0].contents.fp32_contents) == [2, 4, 6, 8]


def test_the_answer_has_the_id_the_version_and_the_engine(
    local_inference: Infer, adder_request: MakeRequest, adder_key: str
) -> None:
    answer = local_inference(adder_request(id="seven"))
    response = _response(answer)
    assert (response.id, response.model_name, response.model_version) == ("seven", "adder", "1")
    assert response.parameters["engine"].string_param == adder_key
    assert response.parameters["target"].string_param == "cpu"
    assert isinstance(answer, Answer)
    assert dict(answer.metadata) == {"enginesmith-engine": adder_key, "enginesmith-target": "cpu"}


def test_only_the_outputs_asked_for_are_sent_in_the_order_asked(
    local_inference: Infer, adder_request: MakeRequest
) -> None:
    request = adder_request(outputs=[Wanted(name="difference"), Wanted(name="sum")])
    assert [output.name for output in _response(local_inference(request)).outputs] == ["difference", "sum"]


def test_a_repeated_request_with_other_bytes_gets_its_own_answer(
    local_inference: Infer, adder_request: MakeRequest
) -> None:
    first = adder_request()
    second = adder_request()
    second.raw_input_contents[0] = np.full((2, 4), 9, np.float32).tobytes()
    sums = [np.frombuffer(_response(local_inference(r)).raw_output_contents[0], np.float32) for r in (first, second)]
    assert sums[0].tolist() == list(range(1, 9))
    assert sums[1].tolist() == [10] * 8


def test_inputs_may_come_in_any_order(local_inference: Infer, adder_request: MakeRequest) -> None:
    request = adder_request()
    turned = pb.ModelInferRequest(
        model_name="adder", inputs=reversed(request.inputs), raw_input_contents=reversed(request.raw_input_contents)
    )
    response = _response(local_inference(turned))
    assert np.frombuffer(response.raw_output_contents[1], np.float32).tolist() == [-1, 0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "parameters",
    [
        {"priority": pb.InferParameter(uint64_param=1)},
        {"timeout": pb.InferParameter(int64_param=10_000_000)},
        {"sequence_id": pb.InferParameter(int64_param=3), "sequence_start": pb.InferParameter(bool_param=True)},
        {"triton_enable_empty_final_response": pb.InferParameter(bool_param=True)},
        {"my_own": pb.InferParameter(string_param="x")},
    ],
    ids=lambda parameters: next(iter(parameters)),
)
def test_parameters_that_change_nothing_are_taken(
    local_inference: Infer, adder_request: MakeRequest, parameters: dict[str, Any]
) -> None:
    assert _response(local_inference(adder_request(parameters=parameters))).outputs


def _changed(request: pb.ModelInferRequest, change: Callable[[pb.ModelInferRequest], object]) -> pb.ModelInferRequest:
    change(request)
    return request


_INVALID = Code.INVALID_ARGUMENT
_BAD_REQUESTS = [
    ("an unknown model", lambda r: setattr(r, "model_name", "adde"), Code.NOT_FOUND, ["'adde'", "'adder'"]),
    ("an unknown version", lambda r: setattr(r, "model_version", "2"), Code.NOT_FOUND, ["'2'", "'1'"]),
    ("an unknown input", lambda r: setattr(r.inputs[0], "name", "c"), _INVALID, ["'c'", "'a', 'b'"]),
    ("an input twice", lambda r: setattr(r.inputs[1], "name", "a"), _INVALID, ["'a'", "twice"]),
    ("a missing input", lambda r: (r.inputs.pop(), r.raw_input_contents.pop()), _INVALID, ["'b'", "missing"]),
    ("another datatype", lambda r: setattr(r.inputs[0], "datatype", "INT64"), _INVALID, ["'a'", "INT64", "FP32"]),
    ("no datatype", lambda r: setattr(r.inputs[0], "datatype", ""), _INVALID, ["'a'", "FP32"]),
    ("a missing dimension", lambda r: r.inputs[0].shape.pop(), _INVALID, ["'a'", "[2]", "[-1, 4]"]),
    ("another width", lambda r: r.inputs[0].shape.__setitem__(1, 5), _INVALID, ["'a'", "5", "4"]),
    ("a negative dimension", lambda r: r.inputs[0].shape.__setitem__(0, -1), _INVALID, ["'a'", "negative"]),
    (
        "a shape outside all profiles",
        lambda r: [tensor.shape.__setitem__(0, 33) for tensor in r.inputs],
        _INVALID,
        ["'a'", "33", "'large'", "[4, 4]", "[32, 4]"],
    ),
    ("unequal rows", lambda r: r.inputs[1].shape.__setitem__(0, 3), _INVALID, ["'rows'", "'b'", "3", "2"]),
    (
        "a shape whose product overflows 64 bits",
        lambda r: [tensor.shape.__setitem__(0, 2**62) for tensor in r.inputs],
        _INVALID,
        ["'a'", str(2**62)],
    ),
    ("too few bytes", lambda r: r.raw_input_contents.__setitem__(0, b"123"), _INVALID, ["'a'", "3 bytes", "32"]),
    ("one byte too many", lambda r: r.raw_input_contents.__setitem__(1, b"0" * 33), _INVALID, ["'b'", "33 bytes"]),
    ("too few raw contents", lambda r: r.raw_input_contents.pop(), _INVALID, ["1 entries", "2 inputs"]),
    (
        "raw and typed contents",
        lambda r: r.inputs[0].contents.fp32_contents.append(1),
        _INVALID,
        ["'a'", "raw_input_contents"],
    ),
    ("an unknown output", lambda r: r.outputs.add(name="product"), _INVALID, ["'product'", "'sum', 'difference'"]),
    ("an output twice", lambda r: (r.outputs.add(name="sum"), r.outputs.add(name="sum")), _INVALID, ["'sum'", "twice"]),
    (
        "classification",
        lambda r: r.outputs.add(name="sum").parameters["classification"].MergeFrom(pb.InferParameter(int64_param=1)),
        Code.UNIMPLEMENTED,
        ["'sum'", "classification"],
    ),
    (
        "shared memory",
        lambda r: r.inputs[0].parameters["shared_memory_region"].MergeFrom(pb.InferParameter(string_param="r")),
        _INVALID,
        ["'a'", "shared_memory_byte_size"],
    ),
    (
        "a negative timeout",
        lambda r: r.parameters["timeout"].MergeFrom(pb.InferParameter(int64_param=-1)),
        _INVALID,
        ["'timeout'", "-1"],
    ),
]


@pytest.mark.parametrize(
    ("change", "want_code", "want_fragments"), [row[1:] for row in _BAD_REQUESTS], ids=[row[0] for row in _BAD_REQUESTS]
)
def test_a_bad_request_is_told_what_is_wrong_and_what_would_do(
    local_inference: Infer,
    adder_request: MakeRequest,
    change: Callable[..., Any],
    want_code: Code,
    want_fragments: list[str],
) -> None:
    answer = local_inference(_changed(adder_request(), change))
    assert isinstance(answer, ProtocolError)
    assert answer.code is want_code, answer.message
    for fragment in want_fragments:
        assert fragment in answer.message


_BAD_TYPED = [
    ("the wrong field", {"fp64_contents": [1, 2, 3, 4]}, ["'a'", "fp32_contents", "fp64_contents"]),
    ("two fields", {"fp32_contents": [1, 2, 3, 4], "int_contents": [1]}, ["'a'", "fp32_contents"]),
    ("too few elements", {"fp32_contents": [1]}, ["'a'", "1 elements", "4"]),
    ("nothing", {}, ["'a'", "0 elements"]),
]


@pytest.mark.parametrize(
    ("contents", "want_fragments"), [row[1:] for row in _BAD_TYPED], ids=[row[0] for row in _BAD_TYPED]
)
def test_bad_typed_contents_are_named(
    local_inference: Infer, contents: dict[str, Any], want_fragments: list[str]
) -> None:
    answer = local_inference(_typed_adder(**contents))
    assert isinstance(answer, ProtocolError)
    assert answer.code is Code.INVALID_ARGUMENT
    for fragment in want_fragments:
        assert fragment in answer.message


def _echo_with_raw(dtype: str, content: bytes) -> pb.ModelInferRequest:
    request = _echo(raw=True, only="FP32")
    index = [tensor.datatype for tensor in request.inputs].index(dtype)
    request.raw_input_contents[index] = content
    return request


@pytest.mark.parametrize(
    ("dtype", "content", "want_fragments"),
    [
        ("BOOL", b"\x01\x02", ["'bool'", "neither 0 nor 1"]),
        ("BYTES", b"\x01", ["'bytes'", "element 0", "cut off"]),
        ("BYTES", b"\x05\x00\x00\x00abc", ["'bytes'", "element 0", "cut off"]),
        ("BYTES", b"\xff\xff\xff\xff", ["'bytes'", "cut off"]),
        ("BYTES", b"\x00\x00\x00\x00", ["'bytes'", "1 BYTES elements", "2"]),
        ("BYTES", (b"\x01\x00\x00\x00\xff") * 2, ["UTF-8"]),
    ],
    ids=["bool", "no length", "short", "endless", "one of two", "not text"],
)
def test_bad_raw_contents_are_named(
    local_inference: Infer, dtype: str, content: bytes, want_fragments: list[str]
) -> None:
    answer = local_inference(_echo_with_raw(dtype, content))
    assert isinstance(answer, ProtocolError)
    assert answer.code is Code.INVALID_ARGUMENT
    for fragment in want_fragments:
        assert fragment in answer.message


def test_an_answer_beyond_the_message_limit_is_refused_with_both_numbers(local_inference: Infer) -> None:
    request = pb.ModelInferRequest(model_name="echo", outputs=[Wanted(name="out_fp64")])
    for tensor in _echo(raw=True, only="FP32").inputs:
        count = 200_000 if tensor.datatype == "FP64" else 2
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=[count])
        values = (
            _RAW_STRINGS if tensor.datatype == "BYTES" else np.zeros(count, _VALUES[tensor.datatype].dtype).tobytes()
        )
        request.raw_input_contents.append(values)
    answer = local_inference(request)
    assert isinstance(answer, ProtocolError)
    assert answer.code is Code.RESOURCE_EXHAUSTED
    assert str(1 << 20) in answer.message
    assert "serving.maxMessageBytes" in answer.message
