"""The program that measures on a GPU, run without one: ONNX Runtime in TensorRT's place, and the record says so."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.gpu.promises import judge

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    work = tmp_path_factory.mktemp("gpu")
    models = subprocess.check_output([_ROOT / "hack" / "fetch-models"], text=True).strip()
    subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.gpu", "--work", work, "--models", models, "--quick"),
            *("--backend", "onnxruntime", "--rounds", "1", "--seconds", "0.2", "--out", work / "record.json"),
        ],
        cwd=_ROOT,
        check=True,
    )
    found: dict[str, Any] = json.loads((work / "record.json").read_text())
    return found


@pytest.mark.slow
def test_a_record_without_a_gpu_says_so_and_promises_nothing(record: dict[str, object]) -> None:
    assert "without a GPU" in str(record["note"])
    assert record["promises"] == []


@pytest.mark.slow
def test_every_engine_of_the_short_run_is_built_and_verified(record: dict[str, Any]) -> None:
    engines = {name: one for name, one in record["builds"].items() if isinstance(one, dict)}
    assert {"resnet50-fp16", "resnet50-uint8", "cls-fp32", "cls-fp32-rebuilt", "resnet50-refitted"} <= set(engines)
    assert {name: one.get("failed") for name, one in engines.items()} == dict.fromkeys(engines)
    assert {one["verification"]["status"] for one in engines.values()} == {"passed"}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["resnet50-fp16", "resnet50-uint8, 4 front ends"])
def test_server_echo_and_loop_are_measured_side_by_side(record: dict[str, Any], engine: str) -> None:
    found = record["serving"][engine]
    assert "failed" not in found
    assert found["ours"]["perSecond"]["median"] > 0
    # An echo does no arithmetic: a figure at or above its own would mean that the server did none either.
    assert 0 < found["ofEcho"]["median"] < 1


def test_a_promise_without_a_figure_is_neither_kept_nor_broken() -> None:
    assert {one["kept"] for one in judge({})} == {None}


@pytest.mark.parametrize(("ratio", "want_kept"), [(0.951, True), (0.949, False)])
def test_a_promise_is_judged_by_its_median(ratio: float, *, want_kept: bool) -> None:
    case = {"ours": {"rateRatio": {"median": ratio}, "p50Ratio": {"median": 1.0}}}
    judged = judge({"execution": {"resnet50-fp16 1x3x224x224": case}})
    assert judged[0]["kept"] is want_kept
