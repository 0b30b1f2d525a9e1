"""The record of a cluster with a GPU: what is promised, and the page that is made of it."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from benchmarks.gpu_cluster.record import judge, make_record

_CLIENT = {"requests": 1200, "errors": 0, "gapSeconds": 0.04, "engines": 2, "slowestSeconds": 0.04}
_NODE = {
    "isReal": True,
    "product": "NVIDIA-H200",
    "gpu": "NVIDIA H200, 580.159.04, 143771 MiB",
    "host": "16 CPUs",
    "node": dict.fromkeys(("containerRuntimeVersion", "kubeletVersion", "osImage", "kernelVersion"), "1"),
}
_TARGET = {"phase": "WaitingForGPU", "message": "no free nvidia.com/gpu on 1 node (gpu-real)"}
_BUILD = {
    "level": 3,
    "podSeconds": 90.0,
    "buildSeconds": 80.0,
    "latencySeconds": {"p": 0.0004},
    "verification": "Passed",
}


def _results(folder: Path, *findings: dict[str, Any]) -> Path:
    file = folder / "results.jsonl"
    file.write_text("".join(json.dumps({"at": 1.0, **one}) + "\n" for one in findings))
    return file


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    return make_record(
        _results(
            tmp_path,
            {"part": "machine", "finding": "node", **_NODE},
            {"part": "first_answers", "finding": "first answer", "seconds": 99.0},
            {"part": "first_answers", "finding": "first answer", "seconds": 24.5},
            {"part": "first_answers", "finding": "full engine", "seconds": 120.0, "client": _CLIENT},
            {"part": "first_answers", "finding": "builds", "builds": {"cls-gpu-1": _BUILD}},
            {"part": "one_gpu", "finding": "wait", "client": _CLIENT, "status": {"targets": [_TARGET]}},
            {"part": "one_gpu", "finding": "replace", "gapSeconds": 31.0, "client": _CLIENT | {"errors": 900}},
            {"part": "rollouts", "finding": "replicas", "seconds": 9.0, "client": _CLIENT | {"errors": 1}},
        )
    )


def test_the_last_finding_of_a_name_counts(record: dict[str, Any]) -> None:
    (first,) = (one for one in record["promises"] if "first answer" in one["what"])
    assert first == {
        "what": "cls FP16: apply to first answer through the Service",
        "wanted": "at most 35 s",
        "figure": 24.5,
        "unit": "s",
        "kept": True,
    }


@pytest.mark.parametrize(
    ("words", "want_figure", "want_kept"),
    [
        ("`whenFull: replace`", 31.0, False),
        ("errors in all rollouts", 1.0, False),
        ("errors of a steady client", 0.0, True),
        ("a rebuild after a change", None, None),
        ("memory of the GPU", None, None),
    ],
)
def test_a_promise_is_kept_broken_or_not_measured(
    record: dict[str, Any], words: str, want_figure: float | None, *, want_kept: bool | None
) -> None:
    (found,) = (one for one in record["promises"] if words in one["what"])
    assert (found["figure"], found["kept"]) == (want_figure, want_kept)


def test_a_record_without_a_gpu_says_so_and_promises_nothing(tmp_path: Path) -> None:
    record = make_record(_results(tmp_path, {"part": "machine", "finding": "node", **_NODE, "isReal": False}))
    assert "without a GPU" in record["note"]
    assert record["promises"] == []


def test_nothing_is_promised_of_nothing() -> None:
    assert {one["kept"] for one in judge({})} == {None}


def test_the_page_shows_promises_steps_builds_and_statuses(record: dict[str, Any], generator: ModuleType) -> None:
    page = generator.cluster_page(Path("2026-11-29-nvidia-h200-cluster.json"), record)
    assert "## NVIDIA-H200, " in page
    assert "| cls FP16: apply to first answer through the Service | at most 35 s | 24.5 s | yes |" in page
    assert "| `whenFull: replace` on one GPU: time without an answer | at most 30 s | 31 s | **no** |" in page
    assert "| first answers | full engine | 120.0 s | 1,200, 0 errors | 0.04 s |  |" in page
    assert "| cls-gpu-1 | 3 | 90.0 s | 80.0 s | 0.40 ms | Passed |" in page
    assert "| wait | WaitingForGPU | no free nvidia.com/gpu on 1 node (gpu-real) |" in page
