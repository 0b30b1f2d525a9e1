"""What a model may take, and how a preparation ends when it is told to."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typing_extensions import override

from enginesmith_contract.errors import CancelledBuildError
from enginesmith_contract.preparation import ExerciseStatus
from enginesmith_runtime.child_processes import Limits, Outcome, run_child
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.interface import Store

Make = Callable[..., Any]
F = TensorProto.FLOAT
node = helper.make_node


def _value(name: str, kind: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [])


class _CancelAfter(SilentReporter):
    """Stands for a user who presses Ctrl-C in a stage."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._now = ""

    @override
    def begin(self, stage: str, detail: str = "") -> None:
        self._now = stage
        del detail

    @override
    def advance(self, fraction: float, detail: str = "") -> None:
        del fraction, detail
        if self._now == self._stage:
            raise CancelledBuildError("stopped")


@pytest.mark.slow
def test_a_shape_beyond_the_memory_budget_is_unverified_and_the_others_stand(
    prepare_model: Make, make_profile: Make, make_model: Make
) -> None:
    path = make_model(
        [node("MatMul", ["x", "x"], ["y"])], inputs={"x": (F, ["n", "n"])}, outputs={"y": (F, ["n", "n"])}
    )
    profile = make_profile(x=((4, 4), (64, 64), (16384, 16384)))
    preparation = prepare_model(path, profile, memory_bytes=512 << 20)
    passed, unverified = ExerciseStatus.PASSED, ExerciseStatus.UNVERIFIED
    assert [entry.status for entry in preparation.exercises] == [passed, passed, unverified]
    assert [reference.point for reference in preparation.references] == ["min", "opt"]
    assert any("max: unverified, since it needs more than the memory budget" in each for each in preparation.warnings)


@pytest.mark.slow
def test_a_shape_beyond_the_time_budget_is_unverified(
    prepare_model: Make, make_profile: Make, make_model: Make
) -> None:
    # As many rounds as the square of the number of elements: no machine is quick enough for the largest shape.
    body = helper.make_graph(
        [node("Identity", ["go_in"], ["go_out"]), node("Add", ["sum_in", "one"], ["sum_out"])],
        "round",
        [_value("round", TensorProto.INT64), _value("go_in", TensorProto.BOOL), _value("sum_in", F)],
        [_value("go_out", TensorProto.BOOL), _value("sum_out", F)],
    )
    nodes = [
        node("Size", ["x"], ["size"]), node("Mul", ["size", "size"], ["rounds"]),
        node("Constant", [], ["one"], value_float=1.0), node("Constant", [], ["start"], value_float=0.0),
        node("Loop", ["rounds", "", "start"], ["sum"], body=body), node("Add", ["x", "sum"], ["y"]),
    ]  # fmt: skip
    path = make_model(nodes, inputs={"x": (F, ["n", "n"])}, outputs={"y": (F, ["n", "n"])})
    preparation = prepare_model(path, make_profile(x=((2, 2), (3, 3), (4096, 4096))), seconds=4)
    assert preparation.exercises[-1].status is ExerciseStatus.UNVERIFIED
    assert "time budget" in preparation.exercises[-1].reason


@pytest.mark.parametrize("stage", ["check", "exercise", "cast"])
def test_a_cancel_leaves_no_pointer_and_no_working_folder(
    prepare_model: Make, make_model: Make, store: Store, tmp_path: Path, stage: str
) -> None:
    path = make_model([node("Relu", ["x"], ["y"])], inputs={"x": (F, [1, 4])}, outputs={"y": (F, [1, 4])})
    with pytest.raises(CancelledBuildError):
        prepare_model(path, reporter=_CancelAfter(stage), precision={"default": "fp16"})
    assert list(store.list_pointers("preparations/")) == []
    assert not list((tmp_path / "work").glob("prepare-*"))


def test_a_child_that_is_given_up_is_dead_with_its_own_children(tmp_path: Path) -> None:
    program = (
        "import subprocess,sys,time; p=subprocess.Popen(['sleep','600']); print(p.pid, flush=True); time.sleep(600)"
    )
    seen: list[int] = []

    def tick() -> None:
        if seen:
            raise CancelledBuildError("stopped")

    with pytest.raises(CancelledBuildError):
        run_child(
            [sys.executable, "-c", program],
            log=tmp_path / "log",
            limits=Limits(),
            tick=tick,
            on_line=lambda line: seen.append(int(line)),
        )
    deadline = time.monotonic() + 120
    while _is_running(seen[0]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _is_running(seen[0])


@pytest.mark.parametrize(
    ("program", "limits", "want_outcome", "want_fragment"),
    [
        pytest.param("import os; os.abort()", Limits(), Outcome.CRASHED, "SIGABRT", id="an abort"),
        pytest.param("import sys; sys.exit('no')", Limits(), Outcome.CRASHED, "exit code 1: no", id="an exit code"),
        pytest.param("import time; time.sleep(600)", Limits(seconds=0.2), Outcome.OUT_OF_TIME, "", id="a hang"),
        pytest.param(
            "a = b'x' * (300 << 20)\nimport time; time.sleep(600)", Limits(memory_bytes=100 << 20),
            Outcome.OUT_OF_MEMORY, "", id="a hog",
        ),
        pytest.param(
            "import os; os.close(1); import time; time.sleep(600)", Limits(seconds=0.5),
            Outcome.OUT_OF_TIME, "", id="a hang without an output",
        ),
        pytest.param(
            "import os; os.kill(os.getpid(), 9)", Limits(), Outcome.OUT_OF_MEMORY, "", id="the kernel's killer",
        ),
        pytest.param(
            "import subprocess; subprocess.Popen(['sleep', '600'])", Limits(seconds=300),
            Outcome.FINISHED, "", id="a process of its own holds the output",
        ),
        pytest.param("print('done')", Limits(), Outcome.FINISHED, "", id="an end"),
    ],
)  # fmt: skip
def test_the_end_of_a_child_has_a_name(
    tmp_path: Path, program: str, limits: Limits, want_outcome: Outcome, want_fragment: str
) -> None:
    end = run_child(
        [sys.executable, "-c", program],
        log=tmp_path / "log",
        limits=limits,
        tick=lambda: None,
        on_line=lambda _: None,
    )
    assert end.outcome is want_outcome
    assert want_fragment in end.detail


def test_references_are_readable_without_pickle(
    prepare_model: Make, make_model: Make, store: Store, tmp_path: Path
) -> None:
    nodes = [node("Identity", ["s"], ["t"])]
    path = make_model(nodes, inputs={"s": (TensorProto.STRING, [3])}, outputs={"t": (TensorProto.STRING, [3])})
    reference = prepare_model(path).references[0]
    with np.load(store.get_files([reference.file], tmp_path / "out"), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["input:s"], arrays["output:t"])


def test_a_bf16_model_is_run_and_kept_as_raw_bits(
    prepare_model: Make, make_model: Make, store: Store, tmp_path: Path
) -> None:
    nodes = [node("Identity", ["x"], ["y"])]
    path = make_model(nodes, inputs={"x": (TensorProto.BFLOAT16, [3])}, outputs={"y": (TensorProto.BFLOAT16, [3])})
    reference = prepare_model(path).references[0]
    with np.load(store.get_files([reference.file], tmp_path / "out")) as arrays:
        assert arrays["output:y"].dtype == np.uint16
        np.testing.assert_array_equal(arrays["input:x"], arrays["output:y"])


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", maxsplit=1)[1].split()[0]
    return state != "Z"
