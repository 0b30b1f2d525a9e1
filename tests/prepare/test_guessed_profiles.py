"""A profile that `enginesmith inspect` prints is one that the model ran with, whatever the model computes in."""

from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from enginesmith_runtime.prepare.trial import Trial, try_model

Make = Callable[..., Path]
Try = Callable[[Path], Trial]
F, I64, BF16 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BFLOAT16
node = helper.make_node


@pytest.fixture
def try_it(tmp_path: Path) -> Try:
    """Return a short form of `try_model`."""

    def run(path: Path) -> Trial:
        folder = tmp_path / "trial"
        folder.mkdir()
        return try_model(path, folder, memory_bytes=1 << 30, seconds=60)

    return run


def test_a_model_with_bf16_inside_gets_a_profile(make_model: Make, try_it: Try) -> None:
    path = make_model(
        [node("Cast", ["x"], ["b"], to=BF16), node("Add", ["b", "b"], ["c"]), node("Cast", ["c"], ["y"], to=F)],
        inputs={"x": (F, ["n", 4])},
        outputs={"y": (F, ["n", 4])},
    )
    trial = try_it(path)
    assert trial.words == ""
    assert trial.profile is not None
    assert trial.profile.inputs["x"].min == (1, 4)


def test_values_that_the_model_refuses_are_named_with_the_profile(make_model: Make, try_it: Try) -> None:
    path = make_model(
        [node("Div", ["a", "b"], ["y"])],
        inputs={"a": (I64, ["n", 4]), "b": (I64, ["n", 4])},
        outputs={"y": (I64, ["n", 4])},
    )
    trial = try_it(path)
    assert trial.profile is not None
    (warning,) = trial.warnings
    assert "set verification.inputs.b to values that the model takes; with {range: [1, 8]} it runs" in warning
