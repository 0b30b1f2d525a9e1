"""What one ratio for a whole output would hide: small channels beside large ones, ids, masks, NaN by design."""

from collections.abc import Sequence

import numpy as np
import pytest

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.errors import SpecError
from enginesmith_contract.tensors import DType
from enginesmith_contract.verification import (
    OutputDifference,
    OutputGate,
    Verification,
    VerificationPolicy,
    VerificationStatus,
)
from enginesmith_runtime.build.compare import compare, is_exact
from enginesmith_runtime.build.output_scales import learn_scales
from enginesmith_runtime.build.verify import judge_differences

Floats = np.ndarray
RNG = np.random.default_rng(5)
INF = np.inf


def _judged(
    actual: Floats,
    reference: Floats,
    dtype: DType = DType.FP32,
    policy: VerificationPolicy | None = None,
    others: Sequence[Floats] = (),
) -> Verification:
    """Judge one run in FP16's limits; `others` are the references of other runs."""
    scales = None if is_exact(dtype) else learn_scales([one.astype(np.float64) for one in (reference, *others)])
    parts = compare(actual, reference, dtype, scales)
    differences = tuple(OutputDifference(output="y", profile="p", **part._asdict()) for part in parts)
    policy = policy or VerificationPolicy()
    return judge_differences(differences, policy, PrecisionPolicy(default=Precision.FP16))


def _changed(array: Floats, where: tuple[int, ...], value: float) -> Floats:
    changed = array.copy()
    changed[where] = value
    return changed


def _boxes(rows: int) -> Floats:
    """Return [rows, 6]: four coordinates up to 640, a score in [0.4, 0.9], a class id below 80."""
    coordinates = RNG.uniform(0, 640, (rows, 4))
    scores = RNG.uniform(0.4, 0.9, (rows, 1))
    return np.concatenate([coordinates, scores, RNG.integers(0, 80, (rows, 1))], axis=1)


@pytest.mark.parametrize(
    ("reference", "where", "value"),
    [
        pytest.param(_boxes(7), (3, 4), 0.3, id="a score beside boxes"),
        pytest.param(_boxes(30).reshape(1, 30, 6), (0, 3, 4), 0.3, id="the same with a batch of one"),
        pytest.param(_boxes(40).T[None], (0, 4, 3), 0.3, id="channels before anchors"),
        pytest.param(_boxes(16).reshape(4, 4, 6).transpose(2, 0, 1)[None], (0, 4, 1, 1), 0.3, id="maps of channels"),
        pytest.param(_boxes(12) * [1e4, 1e4, 1e4, 1e4, 1, 1], (3, 4), 0.3, id="six orders of magnitude"),
        pytest.param(RNG.uniform(0.9, 1, (9, 5)) * [1000, 100, 10, 1, 0.1], (3, 4), 0.03, id="an order each"),
        pytest.param(RNG.normal(0, 1, (9, 3)) * [300, -20, 0.02], (3, 2), 0.3, id="small offsets of both signs"),
    ],
)
def test_a_wrong_score_is_not_hidden_by_coordinates(reference: Floats, where: tuple[int, ...], value: float) -> None:
    verification = _judged(_changed(reference, where, value), reference)
    assert verification.status is VerificationStatus.FAILED
    assert f"element {list(where)} is {value:g}, the reference {reference[where]:.7g}" in verification.reason
    assert _judged(reference * 1.004, reference).status is VerificationStatus.PASSED
    assert _judged(reference, reference).status is VerificationStatus.PASSED


def test_one_row_a_run_is_enough_with_several_runs() -> None:
    rows = [_boxes(1)[:, :5] for _ in range(3)]
    verification = _judged(_changed(rows[0], (0, 4), 0.3), rows[0], others=rows[1:])
    assert verification.status is VerificationStatus.FAILED
    assert "axis 1, index 4 is judged by its own scale" in verification.reason


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param(RNG.normal(0, 5, (1, 1000)), id="logits of one row"),
        pytest.param(RNG.normal(0, 5, (3, 1000)), id="logits of three rows"),
        pytest.param(np.maximum(RNG.normal(0, 5, (2, 64, 4)) - RNG.uniform(0, 20, (64, 1)), 0), id="dead units"),
        pytest.param(np.exp(RNG.normal(-9, 4, (4, 100))).clip(max=1), id="class scores over eight orders"),
        pytest.param(np.array([[0.999, 0.001]] * 8), id="a sure distribution"),
        pytest.param(RNG.normal(0, 1, (1, 3, 32, 32)) * np.linspace(0, 1, 32), id="a map that fades out"),
        pytest.param(RNG.normal(0, 300, (8, 4)) * [1, 1, 1, 1e-9], id="a channel of rounding noise"),
    ],
)
def test_values_of_one_kind_are_judged_by_one_scale(reference: Floats) -> None:
    noise = RNG.uniform(-0.005, 0.005, reference.shape) * np.abs(reference).max()
    assert _judged(reference + noise, reference).status is VerificationStatus.PASSED
    assert _judged(reference + 3 * noise, reference).status is VerificationStatus.FAILED


def test_the_low_scores_of_a_detector_in_noise_bear_fp16_s_logits() -> None:
    scores = RNG.uniform(0.002, 0.004, (20, 1))
    reference = np.concatenate([RNG.uniform(0, 640, (20, 4)), scores], axis=1)
    assert _judged(reference * [1, 1, 1, 1, 1.03], reference).status is VerificationStatus.PASSED
    assert _judged(reference * [1, 1, 1, 1, 2.0], reference).status is VerificationStatus.FAILED


@pytest.mark.parametrize(
    "dtype", [DType.INT8, DType.UINT8, DType.INT16, DType.UINT16, DType.INT32, DType.UINT32, DType.INT64, DType.UINT64]
)
def test_integers_are_judged_by_equality(dtype: DType) -> None:
    reference = np.array([100, 101, 102], dtype.numpy)
    verification = _judged(np.array([100, 101, 103], dtype.numpy), reference, dtype)
    assert verification.status is VerificationStatus.FAILED
    assert "element [2] is 103, the reference 102" in verification.reason
    assert _judged(reference, reference, dtype).status is VerificationStatus.PASSED


def test_integers_beyond_a_double_s_digits_are_told_apart() -> None:
    reference = np.array([2**53], np.int64)
    assert _judged(reference + 1, reference, DType.INT64).status is VerificationStatus.FAILED


@pytest.mark.parametrize(
    ("policy", "want"),
    [
        (VerificationPolicy(), VerificationStatus.FAILED),
        (VerificationPolicy(limit=0.9), VerificationStatus.FAILED),
        (VerificationPolicy(mismatches=0.1), VerificationStatus.FAILED),
        (VerificationPolicy(mismatches=0.25), VerificationStatus.PASSED),
        (VerificationPolicy(outputs={"y": OutputGate(mismatches=0.25)}), VerificationStatus.PASSED),
        (VerificationPolicy(mismatches=0.5, outputs={"y": OutputGate(mismatches=0.1)}), VerificationStatus.FAILED),
        (VerificationPolicy(outputs={"y": OutputGate(limit=1e-1)}), VerificationStatus.PASSED),
        (VerificationPolicy(outputs={"y": OutputGate(limit=1e-4)}), VerificationStatus.FAILED),
        (VerificationPolicy(outputs={"y": OutputGate(limit=1e-1, mismatches=0.1)}), VerificationStatus.FAILED),
    ],
)
def test_a_share_or_a_ratio_of_integers_passes_where_the_policy_names_it(
    policy: VerificationPolicy, want: VerificationStatus
) -> None:
    reference = np.array([100, 101, 102, 103], np.int64)
    assert _judged(reference + np.array([0, 0, 0, 1]), reference, DType.INT64, policy).status is want


def test_booleans_are_judged_by_equality() -> None:
    reference = np.array([True, False] * 100)
    verification = _judged(_changed(reference, (7,), True), reference, DType.BOOL)
    assert "0.005 of the integers, ids, booleans or texts differ" in verification.reason
    assert "element [7] is True, the reference False" in verification.reason


@pytest.mark.parametrize("where", [(3, 5), (0, 5)])
def test_class_ids_as_floats_beside_boxes_are_judged_by_equality(where: tuple[int, ...]) -> None:
    reference = _boxes(7)
    verification = _judged(_changed(reference, where, reference[where] + 1), reference)
    assert verification.status is VerificationStatus.FAILED
    assert f"element {list(where)}" in verification.reason


def test_an_output_of_ids_as_floats_is_judged_by_equality() -> None:
    reference = np.array([2900.0, 2901.0, 2903.0])
    assert _judged(np.array([2899.0, 2901.0, 2903.0]), reference).status is VerificationStatus.FAILED


def test_integers_that_the_engine_does_not_keep_are_judged_by_ratio() -> None:
    reference = np.array([6.0, 6.0, 6.0])
    assert _judged(np.array([5.999, 6.0, 6.0]), reference).status is VerificationStatus.PASSED


def test_a_scalar_and_an_empty_output_are_judged() -> None:
    assert _judged(np.array(2.5), np.array(2.0)).reason.startswith("output 'y', profile 'p': max|a-b|/max|b| is 0.25")
    assert _judged(np.zeros((0, 5)), np.zeros((0, 5))).status is VerificationStatus.PASSED
    assert _judged(np.zeros(0, np.int64), np.zeros(0, np.int64), DType.INT64).status is VerificationStatus.PASSED


MASKED = np.where(RNG.random((4, 8)) < 0.5, RNG.normal(0, 3, (4, 8)), -INF)
MASKED[0, 0] = 2.0


@pytest.mark.parametrize("mask", [-INF, INF, np.nan, float(np.finfo(np.float32).min), -1e9, -65504.0, -1e4])
def test_masked_values_have_to_be_at_the_same_places_and_the_others_are_judged(mask: float) -> None:
    reference = np.where(np.isfinite(MASKED), MASKED, mask)
    assert _judged(reference, reference).status is VerificationStatus.PASSED
    assert _judged(np.where(np.isfinite(MASKED), MASKED * 1.1, mask), reference).status is VerificationStatus.FAILED
    assert _judged(_changed(reference, (0, 0), mask), reference).status is VerificationStatus.FAILED
    masked = tuple(int(index[0]) for index in np.nonzero(~np.isfinite(MASKED)))
    verification = _judged(_changed(reference, masked, 0.0), reference)
    assert verification.status is VerificationStatus.FAILED
    assert f"element {list(masked)} is 0" in verification.reason


def test_fp16_s_infinity_stands_for_float32_s_lowest_and_for_nothing_smaller() -> None:
    lowest = float(np.finfo(np.float32).min)
    reference = np.where(np.isfinite(MASKED), MASKED, lowest)
    assert _judged(MASKED, reference).status is VerificationStatus.PASSED
    reference = np.where(np.isfinite(MASKED), MASKED, -1e9)
    assert _judged(MASKED, reference).status is VerificationStatus.FAILED


def test_slices_near_zero_are_named_as_hardly_verified() -> None:
    assert learn_scales([_boxes(7)[:, :5]]).silent == ()
    assert learn_scales([_boxes(7)[:, [0, 1, 4, 4]] * [1, 1, 1, 1e-4]]).silent == (3,)


def test_a_slice_of_too_few_values_for_a_scale_of_its_own_is_named_as_hardly_verified() -> None:
    runs = [np.array([[600.5, 300.5, 400.5, 500.5, 0, identifier]]) for identifier in (0, 0, 2)]
    scales = learn_scales(runs)
    assert scales.silent == (4, 5)
    assert float(scales.scales.min()) == 600.5


def test_limits_of_an_unknown_output_are_refused() -> None:
    with pytest.raises(SpecError) as refusal:
        _judged(np.ones(3), np.ones(3), policy=VerificationPolicy(outputs={"z": OutputGate(limit=0.1)}))
    assert refusal.value.where == "verification.outputs.z"
    assert refusal.value.reason == "UnknownOutput"
