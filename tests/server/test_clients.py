"""The clients that people have, unmodified: tritonclient in its own environment, and perf_analyzer."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import descriptor_pb2

from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.protos import inference_pb2, model_config_pb2

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("tritonclient_driver.py")
Store = Any
Server = Any  # the fixtures' own types; a test module imports no other

OCR_SHAPES = {
    "cls": ((1, 3, 48, 192), (1, 3, 48, 192), (4, 3, 48, 192)),
    "rec": ((1, 3, 48, 32), (1, 3, 48, 320), (4, 3, 48, 640)),
    "det": ((1, 3, 64, 64), (1, 3, 160, 160), (1, 3, 320, 320)),
}


@pytest.fixture(scope="session")
def drive() -> Callable[..., Any]:
    """Run the driver in tritonclient's environment; returns what it printed."""
    venv = subprocess.run([ROOT / "hack" / "venv", "tritonclient"], check=True, capture_output=True, text=True)
    python = Path(venv.stdout.strip()) / "bin" / "python"

    def run(*arguments: str) -> Any:
        process = subprocess.run([python, DRIVER, *arguments], check=False, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout)

    return run


@pytest.fixture(scope="session")
def seen(drive: Callable[..., Any], shared_server: Server) -> dict[str, Any]:
    """Everything that one run of tritonclient saw."""
    found: dict[str, Any] = drive("calls", shared_server.address)
    return found


def test_tritonclient_finds_server_and_model_ready(seen: dict[str, Any]) -> None:
    assert seen["live"] is seen["ready"] is seen["model_ready"] is True
    assert seen["server"]["name"] == "enginesmith"
    assert {"name": "adder", "version": "1", "state": "READY"} in seen["index"]["models"]


def test_tritonclient_reads_metadata_and_config(seen: dict[str, Any]) -> None:
    assert seen["metadata"]["inputs"][0] == {"name": "a", "datatype": "FP32", "shape": ["-1", "4"]}
    assert seen["metadata"]["platform"] == "onnxruntime_onnx"
    assert seen["config"]["max_batch_size"] == 32
    assert seen["config"]["input"][0] == {"name": "a", "data_type": "TYPE_FP32", "dims": ["4"]}


def test_tritonclient_infers(seen: dict[str, Any]) -> None:
    assert seen["id"] == "seven"
    assert seen["sum"] == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_tritonclient_is_told_what_is_wrong(seen: dict[str, Any]) -> None:
    assert seen["refusal"]["status"] == "StatusCode.INVALID_ARGUMENT"
    assert "'a'" in seen["refusal"]["message"]


def test_tritonclient_streams_past_an_error(seen: dict[str, Any]) -> None:
    first, outside, last = seen["stream"]
    assert first == {"id": "first", "rows": 2, "final": True}
    assert "lies outside" in outside["error"]
    assert last == {"id": "last", "rows": 3, "final": True}


def test_tritonclient_reads_statistics(seen: dict[str, Any]) -> None:
    assert int(seen["statistics"]["inference_count"]) >= 7
    assert int(seen["statistics"]["inference_stats"]["success"]["count"]) >= 3
    assert int(seen["statistics"]["inference_stats"]["fail"]["count"]) >= 2


def test_tritonclient_shares_its_memory(
    drive: Callable[..., Any], start_server: Callable[..., Any], adder_key: str
) -> None:
    seen = drive("shared_memory", start_server({"adder": adder_key}, shared_memory=True).address)
    assert (seen["status"]["name"], seen["status"]["byte_size"]) == ("block", "96")
    assert seen["left"] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert seen["sum"] == 32
    assert seen["difference"] == [[-1, 0, 1, 2], [3, 4, 5, 6]]
    assert seen["after"]["status"] == "StatusCode.INVALID_ARGUMENT"
    assert "no shared memory region 'block'" in seen["after"]["message"]
    assert seen["cuda"] == "StatusCode.UNIMPLEMENTED"


def test_every_number_and_type_of_our_messages_is_tritonclients(drive: Callable[..., Any], tmp_path: Path) -> None:
    ours = descriptor_pb2.FileDescriptorSet()
    for module in (inference_pb2, model_config_pb2):
        module.DESCRIPTOR.CopyToProto(ours.file.add())
    path = tmp_path / "ours.pb"
    path.write_bytes(ours.SerializeToString())
    found = drive("descriptors", str(path))
    assert found["different"] == []
    # MLServer's extension of the metadata, and the entries of its two maps.
    assert all("ModelMetadataResponse" in name and "arameters" in name for name in found["only_ours"])
    # Nothing but optional parts of a model's configuration and statistics is missing.
    missing = {name.split(".")[1] for name in found["only_theirs"]}
    assert not {name for name in missing if name.endswith(("Request", "Service", "Contents", "Parameter"))} - {
        "ModelParameter"
    }


def test_real_models_answer_tritonclient_as_onnx_runtime_does(
    drive: Callable[..., Any], start_server: Callable[..., Any], engine_store: Store, ocr_models: Path
) -> None:
    keys = {}
    for name, (low, opt, high) in OCR_SHAPES.items():
        profile = Profile(inputs={"x": ShapeRange(min=low, opt=opt, max=high)})
        keys[name] = engine_store.publish(model=ocr_models / f"{name}.onnx", profiles=(profile,))
    answers = drive("ocr", start_server(keys).address)
    for name, answer in answers.items():
        session = onnxruntime.InferenceSession(ocr_models / f"{name}.onnx")
        shape = OCR_SHAPES[name][1]
        values = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
        (expected,) = session.run(None, {"x": values})
        assert answer["shape"] == list(expected.shape)
        assert answer["sum"] == pytest.approx(float(expected.astype(np.float64).sum()), rel=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--concurrency-range", "2"],
        ["--concurrency-range", "2", "-b", "4"],
        ["--concurrency-range", "2", "--streaming"],
        ["--concurrency-range", "2", "--shared-memory", "system"],
        ["--concurrency-range", "2", "-i", "http"],
    ],
    ids=["unary", "batches", "streaming", "shared memory", "http"],
)
def test_perf_analyzer_measures_without_a_failure(
    start_module_server: Callable[..., Any], adder_key: str, tmp_path: Path, arguments: list[str]
) -> None:
    server = start_module_server({"adder": adder_key}, instances=2, shared_memory=True, http_address="127.0.0.1:0")
    address = ["-u", server.http] if "http" in arguments else ["-u", server.address, "-i", "grpc"]
    tool = subprocess.run([ROOT / "hack" / "perf-analyzer"], check=True, capture_output=True, text=True)
    report = tmp_path / "report.csv"
    # Any spread counts as stable, and a window lasts as long as its requests take: this is about the protocol, not
    # about the speed of the test machine.
    command = [
        tool.stdout.strip(),
        "-m",
        "adder",
        *address,
        "--measurement-mode",
        "count_windows",
        "--measurement-request-count",
        "50",
        "-s",
        "10000",
    ]
    run = subprocess.run(
        [*command, *arguments, "-f", str(report)], check=False, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (row,) = csv.DictReader(report.read_text().splitlines())
    assert float(row["Inferences/Second"]) > 0
    assert float(row["Server Compute Infer"]) > 0
