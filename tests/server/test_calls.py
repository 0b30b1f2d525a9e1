"""Every call of the service against a real server process: what it says, and what it says to nonsense."""

import json
import random
import re
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from enginesmith_contract.protos import inference_pb2 as pb

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("shared_server", ["http2", "grpcio"], indirect=True, scope="session"),
]

ROOT = Path(__file__).resolve().parents[2]
Client = Any  # the fixtures' own types; a test module imports no other
Server = Any
MakeRequest = Callable[..., pb.ModelInferRequest]
_SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]


def test_the_server_is_live_ready_and_says_what_it_is(client: Client) -> None:
    assert client.call("ServerLive", pb.ServerLiveRequest()).live
    assert client.call("ServerReady", pb.ServerReadyRequest()).ready
    assert client.call("ServerMetadata", pb.ServerMetadataRequest()).name == "enginesmith"


def test_a_model_says_its_tensors_and_its_ranges(client: Client, adder_key: str) -> None:
    metadata = client.call("ModelMetadata", pb.ModelMetadataRequest(name="adder"))
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [
        ("a", "FP32", [-1, 4]),
        ("b", "FP32", [-1, 4]),
    ]
    ranges = {name: json.loads(value.string_param) for name, value in metadata.inputs[0].parameters.items()}
    assert ranges == {
        "profile.small": {"min": [1, 4], "opt": [2, 4], "max": [4, 4]},
        "profile.large": {"min": [4, 4], "opt": [16, 4], "max": [32, 4]},
    }
    assert metadata.parameters["engine"].string_param == adder_key


@pytest.mark.parametrize(("name", "want_batch", "want_dims"), [("adder", 32, [4]), ("echo", 0, [-1])])
def test_a_batch_is_offered_only_where_it_was_proved(
    client: Client, name: str, want_batch: int, want_dims: list[int]
) -> None:
    config = client.call("ModelConfig", pb.ModelConfigRequest(name=name)).config
    assert (config.max_batch_size, list(config.input[0].dims)) == (want_batch, want_dims)
    assert config.instance_group[0].count == 2
    assert not config.model_transaction_policy.decoupled


def test_the_index_lists_every_model(client: Client) -> None:
    index = client.call("RepositoryIndex", pb.RepositoryIndexRequest())
    assert [(m.name, m.version, m.state) for m in index.models] == [("adder", "1", "READY"), ("echo", "1", "READY")]


def test_statistics_count_inferences_batches_and_refusals(client: Client, adder_request: MakeRequest) -> None:
    def read() -> pb.ModelStatistics:
        answer: pb.ModelStatisticsResponse = client.call("ModelStatistics", pb.ModelStatisticsRequest(name="adder"))
        return answer.model_stats[0]

    before = read()
    client.infer(adder_request(3))
    with pytest.raises(grpc.RpcError):
        client.infer(adder_request(33))
    after = read()
    assert after.inference_count - before.inference_count == 3
    assert after.execution_count - before.execution_count == 1
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    assert after.inference_stats.fail.count - before.inference_stats.fail.count == 1
    assert 3 in [batch.batch_size for batch in after.batch_stats]
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert all(getattr(after.inference_stats, part).ns > 0 for part in parts)


@pytest.mark.parametrize(
    "name",
    ["RepositoryModelLoad", "RepositoryModelUnload", "SystemSharedMemoryRegister", "CudaSharedMemoryRegister"],
)
def test_what_is_not_offered_says_so_in_a_sentence(client: Client, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.call(name, getattr(pb, f"{name}Request")())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert len(caught.value.details()) > 20


@pytest.mark.parametrize(
    "name",
    [
        "SystemSharedMemoryStatus",
        "SystemSharedMemoryUnregister",
        "CudaSharedMemoryStatus",
        "CudaSharedMemoryUnregister",
    ],
)
def test_no_shared_memory_is_ever_registered(client: Client, name: str) -> None:
    assert client.call(name, getattr(pb, f"{name}Request")()) == getattr(pb, f"{name}Response")()


def test_settings_can_be_read_and_not_changed(client: Client) -> None:
    assert client.call("TraceSetting", pb.TraceSettingRequest()).settings["trace_level"].value == ["OFF"]
    client.call("LogSettings", pb.LogSettingsRequest())
    request = pb.LogSettingsRequest()
    request.settings["log_info"].bool_param = True
    with pytest.raises(grpc.RpcError) as caught:
        client.call("LogSettings", request)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_every_answer_names_its_engine_in_the_initial_metadata(
    client: Client, adder_request: MakeRequest, adder_key: str
) -> None:
    future = client.begin("ModelInfer", adder_request())
    metadata = dict(future.initial_metadata())
    assert (metadata["enginesmith-engine"], metadata["enginesmith-target"]) == (adder_key, "cpu")


def test_a_message_beyond_the_limit_is_refused_with_both_numbers_and_the_field(client: Client) -> None:
    request = pb.ModelInferRequest(raw_input_contents=[b"x" * (1 << 20)])
    with pytest.raises(grpc.RpcError) as caught:
        client.infer(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for fragment in (str(1 << 20), str(request.ByteSize()), "serving.maxMessageBytes"):
        assert fragment in caught.value.details()


def test_a_message_far_beyond_the_limit_is_not_even_taken(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.infer(pb.ModelInferRequest(raw_input_contents=[b"x" * (3 << 20)]))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_stream_goes_on_after_a_message_beyond_the_limit(client: Client, adder_request: MakeRequest) -> None:
    stream = client.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )
    requests = [pb.ModelInferRequest(raw_input_contents=[b"x" * (1 << 20)]), adder_request()]
    refused, answered = stream(request.SerializeToString() for request in requests)
    assert "serving.maxMessageBytes" in refused.error_message
    assert not answered.error_message


def test_an_unknown_method_is_unimplemented(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.channel.unary_unary("/inference.GRPCInferenceService/ModelTrain")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("name", [method.name for method in _SERVICE.methods if not method.client_streaming])
def test_random_bytes_are_never_an_internal_error(client: Client, name: str) -> None:
    source = random.Random(name)  # noqa: S311 - a seed makes a failure repeatable
    valid = getattr(pb, f"{name}Request")().SerializeToString()
    for _ in range(100):
        data = source.randbytes(source.randrange(1, 200)) + valid
        with_code = _code_of(client, name, data)
        assert with_code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), data
    assert client.call("ServerReady", pb.ServerReadyRequest()).ready


def test_a_flipped_bit_in_a_request_is_never_an_internal_error(client: Client, adder_request: MakeRequest) -> None:
    valid = adder_request(id="7").SerializeToString()
    for bit in range(len(valid) * 8):
        data = bytearray(valid)
        data[bit // 8] ^= 1 << bit % 8
        assert _code_of(client, "ModelInfer", bytes(data)) not in (
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.UNKNOWN,
        ), bit


def _code_of(client: Client, name: str, data: bytes) -> grpc.StatusCode:
    try:
        client.call(name, data)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_health_is_answered_for_the_whole_the_service_and_each_model(shared_server: Server) -> None:
    for address in (shared_server.address, shared_server.ready["health"]):
        with grpc.insecure_channel(str(address)) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            for name in ("", _SERVICE.full_name, "adder", "echo"):
                assert check(health_pb2.HealthCheckRequest(service=name)).status == 1
            with pytest.raises(grpc.RpcError) as caught:
                check(health_pb2.HealthCheckRequest(service="ad"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_metrics_count_requests_by_model_and_code(
    shared_server: Server, client: Client, adder_request: MakeRequest, adder_key: str
) -> None:
    client.infer(adder_request())
    with pytest.raises(grpc.RpcError):
        client.infer(adder_request(33))
    with urllib.request.urlopen(f"http://{shared_server.ready['metrics']}/metrics") as answer:
        text = answer.read().decode()
    labels = 'model="adder",target="cpu",version="1"'
    for code in ("OK", "INVALID_ARGUMENT"):
        assert re.search(rf'enginesmith_requests_total\{{code="{code}",{labels}\}} [1-9]', text)
    assert f"enginesmith_model_ready{{{labels}}} 1.0" in text
    assert f'engine="{adder_key}"' in text
    for histogram in ("queue", "compute"):
        count = re.search(rf"enginesmith_{histogram}_seconds_count\{{{labels}\}} (\S+)", text)
        last = re.search(rf'enginesmith_{histogram}_seconds_bucket\{{le="\+Inf",{labels}\}} (\S+)', text)
        assert count is not None
        assert last is not None
        assert float(count[1]) == float(last[1]) >= 1


def test_grpcurl_lists_describes_and_infers_without_proto_files(shared_server: Server) -> None:
    tool = subprocess.run([ROOT / "hack" / "tool", "grpcurl"], check=True, capture_output=True, text=True)

    def grpcurl(*arguments: str) -> str:
        command = [tool.stdout.strip(), "-plaintext", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert {_SERVICE.full_name, "grpc.health.v1.Health"} <= set(grpcurl(shared_server.address, "list").split())
    assert "rpc ModelStreamInfer" in grpcurl(shared_server.address, "describe", _SERVICE.full_name)
    tensor = {"datatype": "FP32", "shape": [1, 4], "contents": {"fp32_contents": [1, 2, 3, 4]}}
    request = {"model_name": "adder", "inputs": [{"name": "a", **tensor}, {"name": "b", **tensor}]}
    answer = grpcurl("-d", json.dumps(request), shared_server.address, f"{_SERVICE.full_name}/ModelInfer")
    assert json.loads(answer)["outputs"][0]["contents"]["fp32_contents"] == [2, 4, 6, 8]
