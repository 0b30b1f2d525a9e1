"""An answer says how long its own request waited and ran, where the request asks for it."""

import urllib.request
from collections.abc import Callable
from typing import Any

import grpc
import pytest

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
def server(
    request: pytest.FixtureRequest, start_module_server: Callable[..., Any], adder_key: str, slow_key: str
) -> Server:
    return start_module_server({"adder": adder_key, "slow": slow_key}, front_ends=request.param)


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


def test_the_wait_and_the_run_are_told_apart(server: Server, connect: Connect, slow_request: MakeRequest) -> None:
    client = connect(server.address)
    running = client.begin("ModelInfer", slow_request(1500, parameters=_YES))
    _wait_until_one_runs(server)
    waiting = _times(client.infer(slow_request(1, parameters=_YES)))
    ran = _times(running.result())
    assert waiting["queue_us"] > waiting["compute_us"]
    assert ran["compute_us"] > ran["queue_us"]


def test_a_value_that_is_no_bool_is_refused(server: Server, connect: Connect, adder_request: MakeRequest) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        connect(server.address).infer(adder_request(parameters={"timings": pb.InferParameter(string_param="yes")}))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'timings'" in refused.value.details()


def _wait_until_one_runs(server: Server) -> None:
    for _ in range(500):
        with urllib.request.urlopen(f"http://{server.ready['metrics']}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        running = [line for line in lines if line.startswith("enginesmith_requests_in_flight{")]
        if any(float(line.split()[-1]) for line in running):
            return
    pytest.fail("nothing ran")
