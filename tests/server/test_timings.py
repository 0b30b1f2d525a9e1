"""An answer says how long its own request waited and ran, where the request asks for it."""

import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from tests.server.waiting import HOLD, RUN, doubler_request, wait_until_pending

from enginesmith_contract.protos import inference_pb2 as pb

pytestmark = pytest.mark.slow

Client = Any
Server = Any  # the fixtures' own types; a test module imports no other
Connect = Callable[[str], Client]
MakeRequest = Callable[..., pb.ModelInferRequest]

_NAMES = {"queue_us", "compute_us"}
_YES = {"timings": pb.InferParameter(bool_param=True)}
_NO = {"timings": pb.InferParameter(bool_param=False)}


@pytest.fixture(scope="module", params=[0, 2], ids=["one process", "front ends"])
def server(request: pytest.FixtureRequest, start_module_server: Callable[..., Any], adder_key: str) -> Server:
    return start_module_server({"adder": adder_key}, front_ends=request.param)


def _stream(client: Client, *requests: pb.ModelInferRequest) -> list[pb.ModelInferResponse]:
    stream = client.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )
    return [answer.infer_response for answer in stream(request.SerializeToString() for request in requests)]


def _typed(**fields: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="adder", **fields)
    for name in ("a", "b"):
        request.inputs.add(name=name, datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([1, 2, 3, 4])
    return request


def _times(response: pb.ModelInferResponse) -> dict[str, int]:
    assert response.parameters.keys() >= {"engine", "target", *_NAMES}
    return {name: response.parameters[name].int64_param for name in _NAMES}


def test_times_come_in_the_answer_only_where_they_are_asked_for(
    server: Server, connect: Connect, adder_request: MakeRequest
) -> None:
    client = connect(server.address)
    for _ in range(3):  # the first request's plan is kept for the others
        answer = client.infer(adder_request(parameters=_YES))
        assert _times(answer)["compute_us"] > 0
        assert [list(output.shape) for output in answer.outputs] == [[2, 4], [2, 4]]
        assert len(answer.raw_output_contents) == 2
    for parameters in ({}, _NO):
        assert not _NAMES & client.infer(adder_request(parameters=parameters)).parameters.keys()


def test_a_typed_answer_has_them_too(server: Server, connect: Connect) -> None:
    answer = connect(server.address).infer(_typed(parameters=_YES))
    assert _times(answer)["compute_us"] > 0
    assert list(answer.outputs[0].contents.fp32_contents) == [2, 4, 6, 8]


def test_each_answer_of_a_stream_has_those_of_its_request(
    server: Server, connect: Connect, adder_request: MakeRequest
) -> None:
    asked, not_asked, typed = _stream(
        connect(server.address), adder_request(parameters=_YES), adder_request(), _typed(parameters=_YES)
    )
    assert _times(asked)["compute_us"] > 0
    assert not _NAMES & not_asked.parameters.keys()
    assert _times(typed)["compute_us"] > 0
    assert asked.parameters["triton_final_response"].bool_param


@pytest.mark.parametrize("front_ends", [0, 2], ids=["one process", "front ends"])
def test_the_wait_and_the_run_are_told_apart(
    start_server: Callable[..., Any], connect: Connect, doubler_key: str
) -> None:
    server = start_server({"doubler": doubler_key}, fake_gpu=True)
    client = connect(server.address)
    running = client.begin("ModelInfer", doubler_request(HOLD, parameters=_YES))
    wait_until_pending(server, 1)
    sent = time.perf_counter_ns()
    waiting = client.begin("ModelInfer", doubler_request(RUN, parameters=_YES))
    wait_until_pending(server, 2)
    both_pend = time.perf_counter_ns()
    time.sleep(0.002)
    held_us = (time.perf_counter_ns() - both_pend) // 1000
    server.let_go()
    ran, waited = _times(running.result()), _times(waiting.result())
    passed_us = (time.perf_counter_ns() - sent) // 1000
    assert ran["compute_us"] >= held_us
    assert waited["queue_us"] >= held_us
    assert waited["queue_us"] + waited["compute_us"] <= passed_us


def test_a_value_that_is_no_bool_is_refused(server: Server, connect: Connect, adder_request: MakeRequest) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        connect(server.address).infer(adder_request(parameters={"timings": pb.InferParameter(string_param="yes")}))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'timings'" in refused.value.details()
