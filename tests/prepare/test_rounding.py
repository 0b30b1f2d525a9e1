"""What outputs make of the last bits, found on a CPU: the default limits, and the verdict on FP16, follow from it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.profiles import Profile

MakeModel = Callable[..., Path]
MakeProfile = Callable[..., Profile]
Prepare = Callable[..., Preparation]

F = TensorProto.FLOAT
POINTS = ((2, 16), (4, 16), (8, 16))


@pytest.fixture
def mixed(make_model: MakeModel) -> Path:
    """Return a model with an ordinary output, one that doubles an error 14 times, one of integers, and texts."""
    matrix = np.random.default_rng(2).standard_normal((16, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=helper.make_tensor("w", F, (16, 8), matrix.ravel().tolist())),
        helper.make_node("MatMul", ["x", "w"], ["ordinary"], name="product"),
        helper.make_node("ArgMax", ["ordinary"], ["class"], name="class"),
        helper.make_node("Identity", ["text"], ["words"]),
    ]
    value = "x"
    for step in range(14):  # the logistic map: y = 4 y (1 - y)
        last = "chaotic" if step == 13 else f"y{step}"
        nodes += [
            helper.make_node("Sub", ["one", value], [f"rest{step}"], name=f"rest{step}"),
            helper.make_node("Mul", [value, f"rest{step}"], [f"part{step}"], name=f"part{step}"),
            helper.make_node("Mul", ["four", f"part{step}"], [last], name=f"step{step}"),
        ]
        value = last
    return make_model(
        nodes,
        inputs={"x": (F, ("n", 16)), "text": (TensorProto.STRING, (2,))},
        outputs={
            "ordinary": (F, ("n", 8)),
            "chaotic": (F, ("n", 16)),
            "class": (TensorProto.INT64, None),
            "words": (TensorProto.STRING, (2,)),
        },
        weights={"one": np.float32(1), "four": np.float32(4)},
    )


def test_an_output_that_amplifies_the_last_bits_gets_a_wider_limit_and_the_others_do_not(
    mixed: Path, prepare_model: Prepare, make_profile: MakeProfile
) -> None:
    preparation = prepare_model(mixed, make_profile(x=POINTS))
    assert preparation.rounding is not None
    assert preparation.rounding.keys() == {"ordinary", "chaotic"}
    assert 0 < preparation.rounding["ordinary"] < 1e-5
    assert preparation.rounding["chaotic"] > 2e-4
    assert preparation.arithmetic.limit_of("ordinary") == 1e-3
    assert preparation.arithmetic.limit_of("chaotic") > 2e-3
    assert preparation.facts.expected_differences is None


def test_what_fp16_makes_of_the_outputs_is_known_before_a_gpu_is_taken(
    make_model: MakeModel, prepare_model: Prepare, make_profile: MakeProfile, tmp_path: Path
) -> None:
    policy = PrecisionPolicy(default=Precision.FP16)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).random((3, 16), np.float32))
    preparation = prepare_model(
        _cancelling(make_model),
        make_profile(x=POINTS),
        precision=policy,
        verification={"inputs": {"x": {"npz": str(tmp_path / "x.npz")}}},
    )
    assert preparation.facts.expected_differences is not None
    worst, other = preparation.facts.expected_differences
    assert (worst.output, worst.limit) == ("cancelled", 1e-2)
    assert worst.difference > 5 * worst.limit
    assert other.difference < other.limit


def _cancelling(make_model: MakeModel) -> Path:
    """Return a model of two large products whose result is a hundredth of its terms, and of one product alone."""
    random = np.random.default_rng(4)
    spread = random.random((16, 512))
    beside = random.standard_normal((512, 16))
    beside -= np.linalg.pinv(spread) @ (spread @ beside)  # what `spread` makes is nothing to it
    weights = {"a": spread.astype(np.float32), "b": (beside + 0.05 * np.linalg.pinv(spread)).astype(np.float32)}
    return make_model(
        [
            helper.make_node("MatMul", ["x", "a"], ["h"], name="spread"),
            helper.make_node("MatMul", ["h", "b"], ["cancelled"], name="cancel"),
            helper.make_node("Relu", ["h"], ["plain"], name="plain"),
        ],
        inputs={"x": (F, ("n", 16))},
        outputs={"cancelled": (F, ("n", 16)), "plain": (F, ("n", 512))},
        weights=weights,
    )
