"""Ids that are off by a fraction or by one, and small scores next to large ones: the gate knows both from measures."""

import numpy as np
import pytest
from tests.build.test_gate_by_slice import changed, judged

from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_contract.verification import Decode, OutputGate, VerificationStatus
from enginesmith_runtime.comparison.decoding import choose_decoding, count_answers

Floats = np.ndarray
RNG = np.random.default_rng(7)
CLASSES = RNG.integers(0, 1203, 40).astype(np.float64)
SCORES = RNG.uniform(0.2, 1, (40, 1))


@pytest.mark.parametrize("shift", [0.5, -0.5, 1.0, 0.2])
@pytest.mark.parametrize(
    ("reference", "ids"),
    [
        pytest.param(CLASSES, np.s_[:], id="an output of ids"),
        pytest.param(CLASSES[None, :, None], np.s_[:], id="of rank 3"),
        pytest.param(changed(CLASSES, (7,), 3.5), np.s_[:], id="one of them no integer in the reference"),
        pytest.param(
            np.concatenate([RNG.uniform(0, 640, (20, 4)), CLASSES[:20, None]], axis=1),
            np.s_[:, 4],
            id="ids next to boxes",
        ),
        pytest.param(np.concatenate([CLASSES[:, None], SCORES], axis=1), np.s_[:, 0], id="ids next to scores"),
    ],
)
def test_ids_that_are_all_off_fail_whether_the_engine_keeps_integers_or_not(
    reference: Floats, ids: tuple[slice, ...], shift: float
) -> None:
    actual = reference.copy()
    actual[ids] += shift
    assert judged(actual, reference).status is VerificationStatus.FAILED
    first = np.unravel_index(0, actual[ids].shape)
    actual[ids][first] += 0.25
    verification = judged(actual, reference)
    assert verification.status is VerificationStatus.FAILED
    assert "integers, ids, booleans or texts differs" in verification.reason
    assert judged(reference + 0.01 * (reference == 3.5), reference).status is VerificationStatus.PASSED


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param(np.clip(RNG.normal(9, 2, (40, 8)), 0, 6), id="nearly all at one bound"),
        pytest.param(np.where(RNG.random((40, 8)) < 0.97, 0, RNG.uniform(0, 900, (40, 8))), id="nearly all zero"),
        pytest.param(np.full((40, 1), 255.0), id="all at one bound"),
    ],
)
def test_bounds_that_values_reach_are_no_ids(reference: Floats) -> None:
    assert judged(reference - 0.006 * reference.max() * (reference > 0), reference).status is VerificationStatus.PASSED


@pytest.mark.parametrize("small", [3e-4, 1e-3, 4e-3, 1e-2])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_small_score_next_to_large_ones_is_judged_by_its_own_size(small: float, axis: int) -> None:
    reference = np.moveaxis(RNG.uniform(0.99, 1, (1, 30, 3)) * [1, small, 0.5], -1, axis)
    wrong = tuple(1 if each == axis else 0 for each in range(3))
    verification = judged(changed(reference, wrong, 3 * small), reference)
    assert verification.status is VerificationStatus.FAILED
    assert f"axis {axis}, index 1 is judged by its own scale" in verification.reason
    assert judged(changed(reference, wrong, reference[wrong] * 1.02), reference).status is VerificationStatus.PASSED


def test_ids_that_are_off_by_one_do_not_agree_on_samples() -> None:
    reference = np.concatenate([CLASSES[:, None], SCORES], axis=1)
    spec = TensorSpec(name="y", dtype=DType.FP32, shape=(40, 2))
    decoding = choose_decoding(spec, OutputGate(decode=Decode.VALUES), [reference], 1e-2)
    assert count_answers(decoding, reference, reference, DType.FP32) == (80, 80)
    assert count_answers(decoding, reference + np.array([1, 0]), reference, DType.FP32) == (80, 40)
