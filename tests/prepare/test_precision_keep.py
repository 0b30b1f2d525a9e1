"""`precision.keep` names nodes as the model names them, and an entry that names none is an error."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.errors import SpecError
from enginesmith_contract.preparation import Preparation
from enginesmith_runtime.prepare.fp16.cast import cast_model
from enginesmith_runtime.prepare.jobs import CastJob
from enginesmith_runtime.prepare.model_file.check import inspect

Prepare = Callable[..., Preparation]
F = TensorProto.FLOAT
node = helper.make_node


@pytest.fixture
def model(make_model: Callable[..., Path]) -> Path:
    """Return a model whose nodes have brackets in their names, and a node without a name."""

    def branch(name: str, operator: str) -> object:
        inner = node(operator, ["a"], [name], name=f"inner/{operator}")
        return helper.make_graph([inner], name, [], [helper.make_tensor_value_info(name, F, [1, 4])])

    return make_model(
        [
            node("Relu", ["x"], ["a"], name="block[0]/relu"),
            node("Mul", ["a", "k"], ["b"], name="block[0]/mul"),
            node("Mul", ["b", "k"], ["c"], name="block1/mul"),
            node("If", ["o"], ["d"], then_branch=branch("t", "Neg"), else_branch=branch("e", "Abs"), name="branch"),
            node("Add", ["c", "d"], ["y"]),
        ],
        inputs={"x": (F, [1, 4]), "o": (TensorProto.BOOL, [])},
        outputs={"y": (F, [1, 4])},
        weights={"k": np.full(1, 2, np.float32)},
    )


@pytest.mark.parametrize(
    ("entry", "want"),
    [
        ("block[0]/mul", {"block[0]/mul"}),
        ("block[0]/*", {"block[0]/mul", "block[0]/relu"}),
        ("block[[]0]/mul", {"block[0]/mul"}),
        ("block[0-9]/mul", {"block1/mul"}),
        ("M[uv]l", {"block[0]/mul", "block1/mul"}),
        ("*/mul", {"block[0]/mul", "block1/mul"}),
        ("Relu", {"block[0]/relu"}),
        ("y", {"y"}),
        ("inner/Neg", set()),
        ("from:b", {"block1/mul", "y"}),
        ("from:x", {"block[0]/relu", "block[0]/mul", "block1/mul", "branch", "y"}),
        ("from:o", {"branch", "y"}),
    ],
)
def test_an_entry_keeps_what_it_names(model: Path, tmp_path: Path, entry: str, want: set[str]) -> None:
    inspect(model, keep=(entry,))
    policy = PrecisionPolicy(default=Precision.FP16, keep=(entry,))
    (tmp_path / "cast").mkdir()
    kept = cast_model(CastJob(model=str(model), output=str(tmp_path / "cast"), policy=policy)).kept
    assert {name for name, reason in kept.items() if reason == f"precision.keep names it ({entry})"} == want


@pytest.mark.parametrize(
    ("entry", "near"),
    [
        ("block[0]/mull", "block[0]/mul"),
        ("Rellu", "Relu"),
        ("block2/*", "block1/mul"),
        ("", ""),
        ("zzz[qqq]", ""),
        ("from:bb", "b"),
        ("from:y", "no node follows the tensor 'y', an output of the model"),
    ],
)
def test_an_entry_that_names_nothing_is_refused_with_the_nearest_names(model: Path, entry: str, near: str) -> None:
    with pytest.raises(SpecError) as refusal:
        inspect(model, keep=("Mul", entry))
    assert refusal.value.where == "precision.keep[1]"
    assert near in refusal.value.why


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_preparation_refuses_an_entry_that_names_nothing(prepare_model: Prepare, model: Path, precision: str) -> None:
    with pytest.raises(SpecError) as refusal:
        prepare_model(model, precision={"default": precision, "keep": ["Softmax"]})
    assert refusal.value.reason == "KeepMatchesNothing"
