"""One preparation for one key: known ones are taken, and processes that want the same one wait for each other."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper
from typing_extensions import override

from enginesmith_contract.preparation import Preparation
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.interface import Store

Make = Callable[..., Any]
F = TensorProto.FLOAT

_PROGRAM = """
import sys
from pathlib import Path
from enginesmith_contract.preparation import ModelSource, PreparationRequest
from enginesmith_runtime.prepare.pipeline import prepare
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.open import open_store

class Loud(SilentReporter):
    def begin(self, stage, detail=""):
        print(stage, file=sys.stderr)

model, store, work = sys.argv[1:]
request = PreparationRequest(source=ModelSource(uri=model))
print(prepare(request, open_store(store), Path(work), Loud()).to_json().decode())
"""


class _Stages(SilentReporter):
    def __init__(self) -> None:
        self.seen: list[str] = []

    @override
    def begin(self, stage: str, detail: str = "") -> None:
        del detail
        self.seen.append(stage)


def test_a_known_preparation_is_taken_from_the_store(prepare_model: Make, make_model: Make) -> None:
    path = _relu(make_model)
    first = prepare_model(path)
    stages = _Stages()
    assert prepare_model(path, reporter=stages) == first
    assert stages.seen == ["fetch"]


def test_another_precision_is_another_preparation(prepare_model: Make, make_model: Make) -> None:
    path = _relu(make_model)
    assert prepare_model(path).preparation_key != prepare_model(path, precision={"default": "fp16"}).preparation_key


@pytest.mark.slow
def test_of_two_processes_one_works_and_the_other_takes_the_result(
    make_model: Make, store: Store, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(_relu(make_model)), store.uri]
    processes = [
        subprocess.Popen(
            [*command, str(tmp_path / f"work-{number}")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for number in range(2)
    ]
    ended = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    results = [Preparation.from_json(output) for output, _ in ended]
    assert results[0] == results[1]
    stages = sorted(log.split() for _, log in ended)
    assert stages == [["fetch"], ["fetch", "check", "exercise", "store"]]


def _relu(make_model: Make) -> Path:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    path: Path = make_model(nodes, inputs={"x": (F, [1, 4])}, outputs={"y": (F, [1, 4])})
    return path
