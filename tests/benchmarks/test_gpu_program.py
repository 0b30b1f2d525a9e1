"""The program that measures on a GPU, run without one: ONNX Runtime in TensorRT's place, and the record says so."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
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
@pytest.mark.extended
def test_a_record_without_a_gpu_says_so_and_promises_nothing(record: dict[str, object]) -> None:
    assert "without a GPU" in str(record["note"])
    assert record["promises"] == []


@pytest.mark.slow
@pytest.mark.extended
def test_every_engine_of_the_short_run_is_built_and_verified(record: dict[str, Any]) -> None:
    engines = {name: one for name, one in record["builds"].items() if isinstance(one, dict)}
    assert {"resnet50-fp16", "resnet50-uint8", "cls-fp32", "cls-fp32-rebuilt", "resnet50-refitted"} <= set(engines)
    assert {name: one.get("failed") for name, one in engines.items()} == dict.fromkeys(engines)
    assert {one["verification"]["status"] for one in engines.values()} == {"passed"}


@pytest.mark.slow
@pytest.mark.extended
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


_TIMES = {"fp16": 1.0, "int8": 1.4, "bf16": 0.8}


def _precision_record(int8_at_64: float = 1.45) -> dict[str, Any]:
    def at(shape: str, int8: float) -> dict[str, Any]:
        times = {**_TIMES, "int8": int8}
        engines: dict[str, Any] = {
            f"precision-resnet50-{name}": {"milliseconds": _spread(1 / value), "timesFaster": _spread(value)}
            for name, value in times.items()
        }
        return {shape: {**engines, "precision-resnet50-fp8": {"failed": "it does not run at this shape"}}}

    resnet = {**at("1x3x224x224", 1.1), **at("32x3x224x224", 1.4), **at("64x3x224x224", int8_at_64)}
    return {
        "engines": {
            "precision-resnet50-int8": {
                "buildSeconds": 60.0,
                "planBytes": 29_000_000,
                "verification": {
                    "status": "passed",
                    "differences": [{"difference": 0.045}],
                    "agreements": [{"agreement": 0.99}],
                },
            },
            "precision-resnet50-fp32": {"notBuilt": "not built: the section's time was spent"},
        },
        "latency": {"precision-resnet50": resnet},
    }


def _spread(value: float) -> dict[str, float]:
    return {"min": value, "median": value, "max": value}


def _kept(record: dict[str, Any], words: str) -> bool | None:
    (found,) = (one for one in judge(record) if words in one["what"])
    kept: bool | None = found["kept"]
    return kept


@pytest.mark.parametrize(("int8", "want_kept"), [(1.41, True), (1.39, False)])
def test_int8_is_held_against_fp16_at_each_batch(int8: float, *, want_kept: bool) -> None:
    record = {"precision": _precision_record(int8)}
    assert _kept(record, "batch 64: INT8") is want_kept
    assert _kept(record, "batch 32: INT8") is True


@pytest.mark.parametrize(("int8", "want_kept"), [(1.0, True), (0.99, False)])
def test_int8_is_nowhere_slower_than_fp16(int8: float, *, want_kept: bool) -> None:
    assert _kept({"precision": _precision_record(int8)}, "every model and shape") is want_kept


def test_batching_is_judged_by_its_best_setting_that_joins_requests() -> None:
    name = "precision-resnet50-fp16"
    large = f"{name}, messages of 8 images, 0 front ends"
    record = {
        "batching": {
            "clients": 32,
            f"{name}, 0 front ends, 2 instances, delay 1 ms": {"formedBatch": 9.5, "ofBareLoop": _spread(0.4)},
            f"{name}, 4 front ends, 2 instances, delay 1 ms": {"formedBatch": 14.0, "ofBareLoop": _spread(0.85)},
            large: {"ofBareLoop": _spread(0.9), "ofEcho": _spread(0.8)},
        }
    }
    assert _kept(record, "one image of FP32") is True
    assert _kept(record, "one image of UINT8") is None
    assert _kept(record, "messages of 4.8 MB") is False


def test_the_page_shows_precisions_and_batching(generator: ModuleType) -> None:
    page = "\n".join(generator.precision(_precision_record()))
    assert "| precision-resnet50-int8 | 60.0 s | 29.0 MB | passed | 0.99 | 0.045 |" in page
    assert "| precision-resnet50-fp32 | not built: the section's time was spent |" in page
    assert "| 64x3x224x224 | precision-resnet50-int8 | 0.690 ms | 1.45 (1.45 to 1.45) |" in page
    assert "| 1x3x224x224 | precision-resnet50-fp8 | it does not run at this shape |" in page
    setting = {
        "messageBytes": 150_000,
        "formedBatch": 14.2,
        "ours": {"perSecond": _spread(9000.0)},
        "ofEcho": _spread(0.7),
        "ofBareLoop": _spread(0.85),
    }
    (table,) = generator.batching({"clients": 32, "client": "native", "transport": "http2", "a setting": setting})
    assert "| a setting | 150,000 | 14.2 | 9000 | 0.70 (0.70 to 0.70) | 0.85 (0.85 to 0.85) |" in table


def test_a_record_of_earlier_sections_has_no_page_of_precisions(generator: ModuleType) -> None:
    assert (generator.precision({}), generator.batching({})) == ((), ())
