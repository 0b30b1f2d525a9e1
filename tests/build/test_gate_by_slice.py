"""What one ratio for a whole output would hide: small channels beside large ones, ids, masks, NaN by design."""

from collections.abc import Sequence

import numpy as np
import pytest

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.errors import SpecError
from enginesmith_contract.limits import Arithmetic
from enginesmith_contract.tensors import DType
from enginesmith_contract.verification import (
    OutputDifference,
    OutputGate,
    Verification,
    VerificationPolicy,
    VerificationStatus,
)
from enginesmith_runtime.build.verify import judge_differences
from enginesmith_runtime.comparison.compare import compare, is_exact
from enginesmith_runtime.comparison.output_scales import learn_scales

Floats = np.ndarray
RNG = np.random.default_rng(5)
QUIET = np.random.default_rng(6)
INF = np.inf


def judged(
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
    return judge_differences(differences, policy, Arithmetic(precision=PrecisionPolicy(default=Precision.FP16)))


def changed(array: Floats, where: tuple[int, ...], value: float) -> Floats:
    changed = array.copy()
    changed[where] = value
    return changed


def _boxes(rows: int) -> Floats:
    """Return [rows, 6]: four coordinates up to 640, a score in [0.4, 0.9], a class id below 80."""
    coordinates = RNG.uniform(0, 640, (rows, 4))
    scores = RNG.uniform(0.4, 0.9, (rows, 1))
    return np.concatenate([coordinates, scores, RNG.integers(0, 80, (rows, 1))], axis=1)


def _detections(classes: int) -> Floats:
    """Return [1, 4 + classes, 60]: boxes and class scores, channels first."""
    boxes, scores = RNG.uniform(0, 640, (4, 60)), RNG.uniform(0, 0.9, (classes, 60)) ** 2
    return np.concatenate([boxes, scores])[None]


def _quiet(boxes: int, classes: int, loud: Sequence[int]) -> Floats:
    """Return [boxes, 4 + classes]: boxes, and scores of which only those of some classes are above 2^-10."""
    scores = np.where(np.isin(np.arange(classes), loud), QUIET.uniform(0.3, 0.9, (boxes, classes)), 1e-5)
    return np.concatenate([QUIET.uniform(0, 640, (boxes, 4)), scores], axis=1)


def _batched(rows: int) -> Floats:
    """Return [rows, 7]: the image's index, which is 0, then boxes up to 640, score and class id."""
    scores, ids = QUIET.uniform(0.4, 0.9, (rows, 1)), QUIET.integers(0, 80, (rows, 1))
    return np.concatenate([np.zeros((rows, 1)), QUIET.uniform(0, 640, (rows, 4)), scores, ids], axis=1)


def _sparse(rows: int) -> Floats:
    """Return [rows, 5]: two lengths, a score that is mostly 0 and two that are not."""
    often = np.array([np.arange(rows) < rows // 4, np.ones(rows), np.ones(rows)]).T
    return np.concatenate(
        [QUIET.uniform(0.9, 1, (rows, 2)) * [12, 5.5], QUIET.uniform(0.85, 0.9, (rows, 3)) * often], axis=1
    )


def _bridged(rows: int) -> Floats:
    """Return [rows, 7]: large values, three channels that are 0 but for two values, and small values."""
    few = np.where(np.arange(rows)[:, None] < 2, np.array([250.0, 50.0, 2.0]), 0)
    return np.concatenate([QUIET.uniform(400, 640, (rows, 1)), few, QUIET.uniform(1, 1.3, (rows, 3))], axis=1)


LADDER = np.array([640.0, 100.0, 15.0, 2.4, 0.4])
SENSORS = 10 ** np.array([2.8, 0.2, 1.6, -0.4, 2.1, -0.3, 0.9, 1.9, 0.6, 2.5, -0.1, 1.3, 2.3, 0.4, 1.1, 2.7])


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
        pytest.param(RNG.uniform(0.5, 1, (9, 5)) * LADDER, (3, 4), 0.3, id="no two neighbours far apart"),
        pytest.param(RNG.uniform(0.5, 1, (2, 5, 40)) * LADDER[:, None], (1, 4, 7), 0.1, id="the same, channels first"),
        pytest.param(RNG.normal(0, 1, (3, 6, 6, 5)) * LADDER, (1, 4, 1, 4), 0.9, id="the same, maps, channels last"),
        pytest.param(RNG.uniform(0.5, 1, (9, 5)) * LADDER[[3, 1, 4, 0, 2]], (3, 2), 0.1, id="in any order"),
        pytest.param(RNG.uniform(-1, 1, (20, 16)) * SENSORS, (3, 5), 0.9, id="sixteen sensors, each of its unit"),
        pytest.param(RNG.uniform(-1, 1, (20, 16)).T[None] * SENSORS[:, None], (0, 5, 3), 0.9, id="sensors first"),
        pytest.param(RNG.uniform(0.8, 1, (12, 20)) * 640 * 1.48 ** -np.arange(20.0), (3, 19), 0.2, id="fine steps"),
        pytest.param(_quiet(30, 80, range(1, 80)), (3, 40), 0.1, id="a silent first class"),
        pytest.param(_quiet(30, 80, range(1, 80)).T[None], (0, 40, 3), 0.1, id="a silent first class, channels first"),
        pytest.param(_quiet(30, 80, [40])[:, ::-1], (3, 39), 0.1, id="all classes but one silent, boxes last"),
        pytest.param(_batched(20), (3, 5), 0.3, id="an index of 0 before boxes"),
        pytest.param(_sparse(40), (3, 4), 0.8, id="a first score that is mostly 0"),
        pytest.param(_bridged(20), (3, 4), 0.3, id="few values between two scales"),
        pytest.param(_batched(100)[:, 1:].reshape(1, 600), (0, 22), 0.1, id="a flat list of detections"),
        pytest.param(_batched(20)[:, 1:6].reshape(100), (19,), 0.1, id="a flat list of boxes and scores"),
        pytest.param(_detections(1203), (0, 700, 30), 0.05, id="more classes than 1,024"),
    ],
)
def test_a_wrong_score_is_not_hidden_by_coordinates(reference: Floats, where: tuple[int, ...], value: float) -> None:
    verification = judged(changed(reference, where, value), reference)
    assert verification.status is VerificationStatus.FAILED
    assert f"element {list(where)} is {value:g}, the reference {reference[where]:.7g}" in verification.reason
    assert judged(reference * 1.004, reference).status is VerificationStatus.PASSED
    assert judged(reference, reference).status is VerificationStatus.PASSED


def test_a_class_id_of_a_flat_list_is_judged_by_equality() -> None:
    reference = _batched(100).reshape(1, 700, 1)
    where = (0, 6 + 7 * int(np.argmax(reference[0, 6::7, 0])), 0)
    assert judged(changed(reference, where, reference[where] - 1), reference).status is VerificationStatus.FAILED


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param(QUIET.normal(0, 5, (1, 1000)), id="logits"),
        pytest.param(np.maximum(QUIET.normal(-3, 5, (1, 2048)), 0), id="units"),
        pytest.param(QUIET.laplace(0, 1, 512), id="an embedding"),
        pytest.param(np.exp(QUIET.normal(-9, 4, (1, 1000))).clip(max=1), id="class scores"),
        *(pytest.param(np.exp(QUIET.normal(0, 2, (1, 480))), id=f"long tails {number}") for number in range(9)),
        pytest.param((QUIET.normal(0, 1, (64, 10)) * np.linspace(0.1, 1, 10)).reshape(1, 640, 1), id="a small map"),
    ],
)
def test_a_flat_list_of_values_of_one_kind_has_one_scale(reference: Floats) -> None:
    assert np.ptp(learn_scales([reference]).scales) == 0


def test_one_row_a_run_is_enough_with_several_runs() -> None:
    rows = [_boxes(1)[:, :5] for _ in range(3)]
    verification = judged(changed(rows[0], (0, 4), 0.3), rows[0], others=rows[1:])
    assert verification.status is VerificationStatus.FAILED
    assert "axis 1, index 4 is judged by its own scale" in verification.reason


def test_three_runs_of_one_row_tell_a_ladder_of_units_apart() -> None:
    rows = [RNG.uniform(0.8, 1, (1, 5)) * LADDER for _ in range(3)]
    verification = judged(changed(rows[0], (0, 4), 0.2), rows[0], others=rows[1:])
    assert verification.status is VerificationStatus.FAILED
    assert "axis 1, index 4 is judged by its own scale" in verification.reason


def _logits(rows: int, classes: int) -> Floats:
    """Return what a classifier that is sure says: one class of a row far above noise."""
    noise = RNG.normal(0, 1.5, (rows, classes))
    noise[np.arange(rows), RNG.integers(0, classes, rows)] = 15
    return noise


def _segmentation(classes: int) -> Floats:
    """Return [1, classes, 24, 24]: large where a class is, moderate elsewhere; some classes are nowhere."""
    here = RNG.integers(0, classes // 3, (24, 24))
    maps = RNG.normal(-4, 2, (classes, 24, 24))
    maps[here, np.arange(24)[:, None], np.arange(24)] = RNG.normal(14, 3, (24, 24))
    return maps[None]


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param(RNG.normal(0, 5, (1, 1000)), id="logits of one row"),
        pytest.param(_logits(8, 1000), id="logits of eight rows"),
        pytest.param(_logits(40, 12), id="logits of few classes"),
        pytest.param(_segmentation(21), id="segmentation"),
        pytest.param(_segmentation(21).transpose(0, 2, 3, 1), id="segmentation, channels last"),
        pytest.param(RNG.normal(0, 1, (7, 512)), id="embeddings"),
        pytest.param(RNG.normal(0, 1, (3, 128)), id="embeddings of three rows"),
        pytest.param(RNG.laplace(0, 1, (8, 64)), id="embeddings with a few large values"),
        pytest.param(RNG.normal(0, 1, (4, 10)) * 80 + 112, id="landmarks"),
        pytest.param(RNG.normal(0, 1, (3, 5, 2)) * 0.2, id="landmarks as pairs, relative"),
        pytest.param(np.maximum(RNG.normal(0, 5, (3, 16, 36)) - RNG.uniform(0, 14, (16, 1)), 0), id="few dead units"),
        pytest.param(RNG.normal(0, 1, (2, 1, 24, 24)) * np.linspace(0, 1, 24)[:, None] ** 1.5, id="a map that fades"),
        pytest.param(np.exp(RNG.normal(0, 1.5, (1, 400, 8))), id="box distances"),
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
    assert judged(reference + noise, reference).status is VerificationStatus.PASSED
    assert judged(reference + 3 * noise, reference).status is VerificationStatus.FAILED


def test_the_low_scores_of_a_detector_in_noise_bear_fp16_s_logits() -> None:
    scores = RNG.uniform(0.002, 0.004, (20, 1))
    reference = np.concatenate([RNG.uniform(0, 640, (20, 4)), scores], axis=1)
    assert judged(reference * [1, 1, 1, 1, 1.03], reference).status is VerificationStatus.PASSED
    assert judged(reference * [1, 1, 1, 1, 2.0], reference).status is VerificationStatus.FAILED


def test_a_channel_of_noise_leaves_low_scores_their_floor() -> None:
    scores, noise = QUIET.uniform(0.002, 0.004, (20, 1)), QUIET.uniform(-1e-9, 1e-9, (20, 1))
    reference = np.concatenate([QUIET.uniform(0, 640, (20, 4)), scores, noise], axis=1)
    assert judged(reference * [1, 1, 1, 1, 1.03, 1], reference).status is VerificationStatus.PASSED


@pytest.mark.parametrize(
    "dtype", [DType.INT8, DType.UINT8, DType.INT16, DType.UINT16, DType.INT32, DType.UINT32, DType.INT64, DType.UINT64]
)
def test_integers_are_judged_by_equality(dtype: DType) -> None:
    reference = np.array([100, 101, 102], dtype.numpy)
    verification = judged(np.array([100, 101, 103], dtype.numpy), reference, dtype)
    assert verification.status is VerificationStatus.FAILED
    assert "element [2] is 103, the reference 102" in verification.reason
    assert judged(reference, reference, dtype).status is VerificationStatus.PASSED


def test_integers_beyond_a_double_s_digits_are_told_apart() -> None:
    reference = np.array([2**53], np.int64)
    assert judged(reference + 1, reference, DType.INT64).status is VerificationStatus.FAILED


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
    assert judged(reference + np.array([0, 0, 0, 1]), reference, DType.INT64, policy).status is want


def test_booleans_are_judged_by_equality() -> None:
    reference = np.array([True, False] * 100)
    verification = judged(changed(reference, (7,), True), reference, DType.BOOL)
    assert "0.005 of the integers, ids, booleans or texts differ" in verification.reason
    assert "element [7] is True, the reference False" in verification.reason


@pytest.mark.parametrize("where", [(3, 5), (0, 5)])
def test_class_ids_as_floats_beside_boxes_are_judged_by_equality(where: tuple[int, ...]) -> None:
    reference = _boxes(7)
    verification = judged(changed(reference, where, reference[where] + 1), reference)
    assert verification.status is VerificationStatus.FAILED
    assert f"element {list(where)}" in verification.reason


def test_an_output_of_ids_as_floats_is_judged_by_equality() -> None:
    reference = np.array([2900.0, 2901.0, 2903.0])
    assert judged(np.array([2899.0, 2901.0, 2903.0]), reference).status is VerificationStatus.FAILED


TRACKS = QUIET.integers(4_200_000, 4_400_000, (20, 1))
FRAME = QUIET.uniform(0, 640, (20, 4))


@pytest.mark.parametrize(
    ("reference", "dtype"),
    [
        pytest.param(np.concatenate([FRAME, TRACKS], axis=1), DType.FP32, id="track ids next to boxes"),
        pytest.param(TRACKS[:, 0], DType.FP32, id="track ids"),
        pytest.param(np.arange(16_000_000.0, 16_000_012), DType.FP32, id="a counter"),
        pytest.param(np.append(np.arange(5.0) * 1e5 + 2e5, 12_000_000), DType.FP32, id="small and large ids"),
        pytest.param(np.array([2900.0, 2901, 4, 2903, 7]), DType.FP32, id="small and middling ids"),
        pytest.param(np.concatenate([FRAME, TRACKS % 1203], axis=1), DType.FP16, id="many classes in FP16"),
        pytest.param(
            np.concatenate([FRAME * 1e4, TRACKS % 900 + 1e5], axis=1), DType.FP32, id="class ids next to metres"
        ),
        pytest.param(np.concatenate([FRAME, TRACKS % 200], axis=1), DType.BF16, id="class ids next to boxes in BF16"),
    ],
)
def test_ids_are_judged_by_equality_as_far_as_the_type_holds_integers(reference: Floats, dtype: DType) -> None:
    where = (3, reference.shape[1] - 1) if reference.ndim > 1 else (3,)
    verification = judged(changed(reference, where, reference[where] + 1), reference, dtype)
    assert verification.status is VerificationStatus.FAILED
    assert f"element {list(where)}" in verification.reason
    assert judged(reference, reference, dtype).status is VerificationStatus.PASSED


@pytest.mark.parametrize(
    ("reference", "dtype"),
    [
        pytest.param(QUIET.uniform(8.4e6, 1.6e7, 40), DType.FP32, id="FP32"),
        pytest.param(QUIET.uniform(1e7, 9e8, 40), DType.FP32, id="beyond 2^24"),
        pytest.param(QUIET.uniform(1100, 2000, 40), DType.FP16, id="FP16"),
        pytest.param(np.full(40, 9e6), DType.FP32, id="a constant"),
        pytest.param(np.arange(12.0) - 9e6, DType.FP32, id="scores behind a mask"),
        pytest.param(np.array([[600.0, 900, 1200]] * 3).T, DType.FP16, id="few values in FP16"),
    ],
)
def test_measures_too_large_for_a_fraction_are_judged_by_ratio(reference: Floats, dtype: DType) -> None:
    reference = np.rint(reference)
    assert judged(reference + 1, reference, dtype).status is VerificationStatus.PASSED


def test_integers_that_the_engine_does_not_keep_are_judged_by_ratio() -> None:
    reference = np.array([6.0, 6.0, 6.0])
    assert judged(np.array([5.999, 6.0, 6.0]), reference).status is VerificationStatus.PASSED


def test_a_scalar_and_an_empty_output_arejudged() -> None:
    assert judged(np.array(2.5), np.array(2.0)).reason.startswith("output 'y', profile 'p': max|a-b|/max|b| is 0.25")
    assert judged(np.zeros((0, 5)), np.zeros((0, 5))).status is VerificationStatus.PASSED
    assert judged(np.zeros(0, np.int64), np.zeros(0, np.int64), DType.INT64).status is VerificationStatus.PASSED


MASKED = np.where(RNG.random((4, 8)) < 0.5, RNG.normal(0, 3, (4, 8)), -INF)
MASKED[0, 0] = 2.0


@pytest.mark.parametrize("mask", [-INF, INF, np.nan, float(np.finfo(np.float32).min), -1e9, -65504.0, -1e4])
def test_masked_values_have_to_be_at_the_same_places_and_the_others_arejudged(mask: float) -> None:
    reference = np.where(np.isfinite(MASKED), MASKED, mask)
    assert judged(reference, reference).status is VerificationStatus.PASSED
    assert judged(np.where(np.isfinite(MASKED), MASKED * 1.1, mask), reference).status is VerificationStatus.FAILED
    assert judged(changed(reference, (0, 0), mask), reference).status is VerificationStatus.FAILED
    masked = tuple(int(index[0]) for index in np.nonzero(~np.isfinite(MASKED)))
    verification = judged(changed(reference, masked, 0.0), reference)
    assert verification.status is VerificationStatus.FAILED
    assert f"element {list(masked)} is 0" in verification.reason


def test_fp16_s_infinity_stands_for_float32_s_lowest_and_for_nothing_smaller() -> None:
    lowest = float(np.finfo(np.float32).min)
    reference = np.where(np.isfinite(MASKED), MASKED, lowest)
    assert judged(MASKED, reference).status is VerificationStatus.PASSED
    reference = np.where(np.isfinite(MASKED), MASKED, -1e9)
    assert judged(MASKED, reference).status is VerificationStatus.FAILED


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
        judged(np.ones(3), np.ones(3), policy=VerificationPolicy(outputs={"z": OutputGate(limit=0.1)}))
    assert refusal.value.where == "verification.outputs.z"
    assert refusal.value.reason == "UnknownOutput"
