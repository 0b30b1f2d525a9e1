"""Typed contents at and beyond the bounds of their datatype, by every way that a request can come."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from enginesmith_contract.protos import inference_pb2 as pb

pytestmark = pytest.mark.slow

_FIELDS = {
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "BOOL": "bool_contents",
}
_NARROW = ("INT8", "INT16", "UINT8", "UINT16")
_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"

StartServer = Callable[..., Any]
Connect = Callable[[str], Any]


@pytest.fixture(scope="module", params=[0, 2], ids=["without front ends", "with front ends"])
def channel(
    request: pytest.FixtureRequest, start_module_server: StartServer, integers_key: str
) -> Iterator[grpc.Channel]:
    server = start_module_server({"integers": integers_key}, front_ends=request.param)
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def _request(**given: list[int]) -> pb.ModelInferRequest:
    """Return a request with one 1 for each input, but for `given`."""
    request = pb.ModelInferRequest(model_name="integers")
    for dtype, field in _FIELDS.items():
        values = given.get(dtype, [1])
        tensor = request.inputs.add(name=dtype.lower(), datatype=dtype, shape=[len(values)])
        getattr(tensor.contents, field).extend(values)
    return request


def _refusal(channel: grpc.Channel, request: pb.ModelInferRequest) -> tuple[grpc.StatusCode, str]:
    infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.RpcError) as refused:
        infer(request.SerializeToString(), timeout=120)
    return refused.value.code(), refused.value.details()


def _beyond(dtype: str) -> tuple[int, ...]:
    bounds = np.iinfo(dtype.lower())
    return (bounds.max + 1, bounds.max + 45) if bounds.min == 0 else (bounds.max + 1, bounds.min - 1, bounds.min - 300)


@pytest.mark.parametrize(("dtype", "value"), [(dtype, value) for dtype in _NARROW for value in _beyond(dtype)])
def test_a_value_that_the_datatype_cannot_hold_is_named_with_its_index(
    channel: grpc.Channel, dtype: str, value: int
) -> None:
    code, words = _refusal(channel, _request(**{dtype: [0, 1, value, 5, value]}))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    for fragment in (f"'{dtype.lower()}'", f"element 2 of {_FIELDS[dtype]} is {value},", dtype):
        assert fragment in words


@pytest.mark.parametrize("dtype", [name for name in _FIELDS if name != "BOOL"])
def test_the_bounds_themselves_come_back(channel: grpc.Channel, dtype: str) -> None:
    bounds = np.iinfo(dtype.lower())
    infer = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
    )
    response = infer(_request(**{dtype: [bounds.min, bounds.max, 0]}).SerializeToString(), timeout=120)
    contents = next(output.contents for output in response.outputs if output.name == f"out_{dtype.lower()}")
    assert list(getattr(contents, _FIELDS[dtype])) == [bounds.min, bounds.max, 0]


@pytest.mark.parametrize("dtype", _NARROW)
def test_a_stream_goes_on_after_such_a_value(channel: grpc.Channel, dtype: str) -> None:
    value = np.iinfo(dtype.lower()).max + 1
    stream = channel.stream_stream(_STREAM, response_deserializer=pb.ModelStreamInferResponse.FromString)
    requests = [_request(**{dtype: [value]}), _request()]
    wrong, right = stream((request.SerializeToString() for request in requests), timeout=120)
    assert f"element 0 of {_FIELDS[dtype]} is {value}" in wrong.error_message
    assert not right.error_message


@pytest.mark.parametrize(
    ("given", "want_fragments"),
    [
        ([1, 2, 3], ["'int8'", "3 elements", "takes 2"]),
        ([1], ["'int8'", "1 elements", "takes 2"]),
    ],
    ids=["too many", "too few"],
)
def test_a_wrong_count_is_named(channel: grpc.Channel, given: list[int], want_fragments: list[str]) -> None:
    request = _request(INT8=given)
    request.inputs[0].shape[0] = 2
    code, words = _refusal(channel, request)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    for fragment in want_fragments:
        assert fragment in words
