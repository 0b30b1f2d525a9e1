"""The hand-written part of the wire format reads what the protobuf library reads, and refuses what it refuses."""

import random
from typing import Any

import pytest

from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.protocol.wire import join_raw_outputs, split_request, wrap_message


def _request(*, raw: list[bytes], **fields: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(model_name="m", raw_input_contents=raw, **fields)


@pytest.mark.parametrize(
    "request_message",
    [
        _request(raw=[]),
        _request(raw=[b""]),
        _request(raw=[b"x" * size for size in (1, 127, 128, 16384, 300_000)]),
        _request(raw=[b"ab"], id="i" * 300, parameters={"p": pb.InferParameter(uint64_param=2**64 - 1)}),
    ],
    ids=["none", "empty", "sizes", "long-id"],
)
def test_splitting_a_request_loses_nothing(request_message: pb.ModelInferRequest) -> None:
    head, raw, request_id = split_request(request_message.SerializeToString())
    read = pb.ModelInferRequest.FromString(head)
    assert not read.raw_input_contents
    assert not read.id
    read.id = bytes(request_id or b"").decode()
    read.raw_input_contents.extend(bytes(content) for content in raw)
    assert read == request_message


def test_raw_contents_between_other_fields_are_found() -> None:
    first = pb.ModelInferRequest(raw_input_contents=[b"one"]).SerializeToString()
    second = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"two"], id="7").SerializeToString()
    head, raw, request_id = split_request(first + second)
    assert [bytes(content) for content in raw] == [b"one", b"two"]
    assert pb.ModelInferRequest.FromString(head) == pb.ModelInferRequest(model_name="m")
    assert bytes(request_id or b"") == b"7"


def test_unknown_fields_of_every_wire_type_are_kept_for_the_library() -> None:
    unknown = b"\xf8\x01\x05" + b"\xf9\x01" + b"8bytes!!" + b"\xfd\x01" + b"four" + b"\xfa\x01\x02hi"
    data = unknown + pb.ModelInferRequest(raw_input_contents=[b"one"]).SerializeToString()
    head, raw, _ = split_request(data)
    assert head == unknown
    assert [bytes(content) for content in raw] == [b"one"]


@pytest.mark.parametrize(
    "data",
    [b"\x3a", b"\x3a\x05abc", b"\x3a" + b"\xff" * 11, b"\x0b", b"\x09abc", b"\x0dab", b"\x80", b"\x08"],
    ids=["no size", "cut off", "endless size", "group", "short 64", "short 32", "endless tag", "no varint"],
)
def test_malformed_bytes_are_the_clients_fault(data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        split_request(data)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_every_cut_of_a_request_is_read_as_the_library_reads_it_or_refused() -> None:
    whole = _request(raw=[b"x" * 200], id="7").SerializeToString()
    for end in range(len(whole)):
        try:
            head, raw, _ = split_request(whole[:end])
        except ProtocolError:
            continue
        expected = pb.ModelInferRequest.FromString(whole[:end])
        assert [bytes(content) for content in raw] == list(expected.raw_input_contents)
        assert pb.ModelInferRequest.FromString(head).model_name == expected.model_name


def test_random_bytes_never_raise_anything_but_a_refusal() -> None:
    source = random.Random(7)  # noqa: S311 - a seed makes a failure repeatable
    for _ in range(5000):
        data = source.randbytes(source.randrange(1, 60))
        try:
            head, raw, _ = split_request(data)
        except ProtocolError:
            continue
        assert sum(map(len, raw)) <= len(data)
        assert len(head) <= len(data)


def test_joined_outputs_are_what_the_library_would_have_written() -> None:
    head = pb.ModelInferResponse(model_name="m", id="7")
    joined = join_raw_outputs(head.SerializeToString(), [b"", memoryview(b"x" * 200)])
    head.raw_output_contents.extend([b"", b"x" * 200])
    assert joined == head.SerializeToString()


def test_a_wrapped_response_is_a_stream_response() -> None:
    inner = pb.ModelInferResponse(model_name="m" * 200)
    wrapped = pb.ModelStreamInferResponse.FromString(wrap_message(2, inner.SerializeToString()))
    assert wrapped.infer_response == inner
