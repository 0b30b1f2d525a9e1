"""Dynamic batching as the clients of a real server see it, with and without front ends."""

import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from tests.server.engine_store import EngineStore, Publication
from tests.server.onnx_models import patient_model

from enginesmith_contract.preparation import Batching
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.protos import inference_pb2 as pb

pytestmark = [pytest.mark.slow, pytest.mark.extended]

Client = Any  # the fixtures' own types; a test module imports no other
Connect = Callable[[str], Client]
StartServer = Callable[..., Any]

_LONG = 3000
"""Steps of a request that runs until the others wait."""


@pytest.fixture(params=[0, 2], ids=["one-process", "front-ends"])
def front_ends(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def patient_key(engine_store: EngineStore, tmp_path: Path) -> str:
    path = tmp_path / "patient.onnx"
    onnx.save(patient_model(), path)
    inputs = {
        "x": ShapeRange(min=(1, 4), opt=(1, 4), max=(8, 4)),
        "steps": ShapeRange(min=(1,), opt=(1,), max=(8,)),
    }
    batching = Batching(proved=True, max_batch_size=8)
    return engine_store.publish(Publication(model=path, profiles=(Profile(inputs=inputs),), batching=batching))


def _request(value: float, steps: int = 1, rows: int = 1) -> pb.ModelInferRequest:
    arrays: dict[str, np.ndarray] = {
        "x": np.full((rows, 4), value, np.float32),
        "steps": np.full((rows,), steps, np.int64),
    }
    return pb.ModelInferRequest(
        model_name="patient",
        inputs=[
            pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=arrays[name].shape)
            for name, datatype in (("x", "FP32"), ("steps", "INT64"))
        ],
        raw_input_contents=[array.tobytes() for array in arrays.values()],
    )


def _metrics(server: Any) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{server.ready['metrics']}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return {line.split("{")[0]: float(line.split()[-1]) for line in lines if line.startswith("enginesmith_")}


def _wait_for(server: Any, name: str, value: float) -> None:
    for _ in range(2000):
        if _metrics(server)[name] == value:
            return
    pytest.fail(f"{name} never was {value}")


def test_requests_that_wait_share_a_run_and_each_gets_its_own_answer(
    start_server: StartServer, connect: Connect, patient_key: str
) -> None:
    server = start_server({"patient": patient_key})
    first, second = connect(server.address), connect(server.address)
    running = first.begin("ModelInfer", _request(0.0, _LONG))
    _wait_for(server, "enginesmith_requests_in_flight", 1)
    waiting = {
        value: (first, second)[value % 2].begin("ModelInfer", _request(value, rows=value)) for value in (1, 2, 3)
    }
    _wait_for(server, "enginesmith_requests_queued", 3)
    # A wrong request is refused at once and joins no batch.
    with pytest.raises(grpc.RpcError, match="outside"):
        first.infer(_request(1.0, rows=9))
    for value, call in waiting.items():
        answer = np.frombuffer(call.result().raw_output_contents[0], np.float32)
        np.testing.assert_array_equal(answer, np.full(4 * value, 2.0 * value, np.float32))
    assert running.result().outputs
    (statistics,) = first.call("ModelStatistics", pb.ModelStatisticsRequest(name="patient")).model_stats
    assert (statistics.inference_count, statistics.execution_count) == (7, 2)
    assert {one.batch_size: one.compute_infer.count for one in statistics.batch_stats} == {1: 1, 6: 1}
    assert statistics.inference_stats.success.count == 4
    metrics = _metrics(server)
    assert (metrics["enginesmith_inferences_total"], metrics["enginesmith_executions_total"]) == (7, 2)
    assert (metrics["enginesmith_batch_size_count"], metrics["enginesmith_batch_size_sum"]) == (2, 7)
    config = first.call("ModelConfig", pb.ModelConfigRequest(name="patient")).config
    assert config.HasField("dynamic_batching")
    assert config.max_batch_size == 8


def test_a_request_that_its_client_cancelled_is_in_no_batch(
    start_server: StartServer, connect: Connect, patient_key: str
) -> None:
    server = start_server({"patient": patient_key})
    client = connect(server.address)
    running = client.begin("ModelInfer", _request(0.0, _LONG))
    _wait_for(server, "enginesmith_requests_in_flight", 1)
    calls = [client.begin("ModelInfer", _request(1.0)) for _ in range(3)]
    _wait_for(server, "enginesmith_requests_queued", 3)
    calls[1].cancel()
    _wait_for(server, "enginesmith_requests_queued", 2)
    assert running.result().outputs
    for call in (calls[0], calls[2]):
        assert call.result().outputs
    (statistics,) = client.call("ModelStatistics", pb.ModelStatisticsRequest(name="patient")).model_stats
    assert {one.batch_size: one.compute_infer.count for one in statistics.batch_stats} == {1: 1, 2: 1}
