"""The gate's arithmetic: what counts as a difference, and what a changed limit says of a stored one."""

import math

import numpy as np
import pytest

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.errors import SpecError, VerificationError
from enginesmith_contract.limits import Arithmetic
from enginesmith_contract.tensors import DType
from enginesmith_contract.verification import (
    InputValues,
    OutputDifference,
    Verification,
    VerificationPolicy,
    VerificationStatus,
)
from enginesmith_runtime.build.failed_gate import raise_if_failed
from enginesmith_runtime.build.verify import judge_differences, not_run
from enginesmith_runtime.comparison.compare import Comparison, as_floats, compare, is_exact
from enginesmith_runtime.comparison.output_scales import learn_scales


def _bf16(*values: float) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint16]]":
    return (np.array(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def _compare(actual: np.ndarray, reference: np.ndarray, dtype: DType) -> tuple[Comparison, ...]:
    scales = None if is_exact(dtype) else learn_scales([as_floats(reference, dtype)])
    return compare(actual, reference, dtype, scales)


@pytest.mark.parametrize(
    ("actual", "reference", "dtype", "want"),
    [
        pytest.param(np.array([1.0, 9.0]), np.array([1.0, 10.0]), DType.FP64, 0.1, id="relative to the largest"),
        pytest.param(
            np.array([0.0, 10.0]), np.array([1e-9, 10.0]), DType.FP64, 1e-10, id="small elements do not count"
        ),
        pytest.param(np.array([3], np.int64), np.array([4], np.int64), DType.INT64, 0.25, id="integers"),
        pytest.param(np.array([True]), np.array([False]), DType.BOOL, 1.0, id="booleans"),
        pytest.param(np.array([6e-8]), np.array([0.0]), DType.FP64, 6e-8 * 1024, id="noise around zero"),
        pytest.param(np.zeros((0, 3)), np.zeros((0, 3)), DType.FP32, 0.0, id="no elements"),
        pytest.param(np.float32(2.0).reshape(()), np.float32(2.0).reshape(()), DType.FP32, 0.0, id="a scalar"),
        pytest.param(np.zeros(3), np.zeros(2), DType.FP32, math.inf, id="another shape"),
        pytest.param(np.array([np.nan]), np.array([1.0]), DType.FP32, math.inf, id="NaN in the answer"),
        pytest.param(np.array([np.inf]), np.array([np.inf]), DType.FP32, 0.0, id="infinity on both sides"),
        pytest.param(np.array([-np.inf]), np.array([np.inf]), DType.FP32, math.inf, id="the other infinity"),
        pytest.param(np.array([np.nan]), np.array([np.inf]), DType.FP32, math.inf, id="NaN for infinity"),
        pytest.param(np.array([np.nan]), np.array([np.nan]), DType.FP32, 0.0, id="NaN on both sides"),
        pytest.param(np.array([1.0]), np.array([np.nan]), DType.FP32, math.inf, id="NaN in the reference"),
        pytest.param(_bf16(1.0, 2.0), np.array([1.0, 2.0], np.float32), DType.BF16, 0.0, id="BF16 against FP32"),
        pytest.param(_bf16(1.0, 2.0), _bf16(1.0, 4.0), DType.BF16, 0.5, id="BF16 against BF16"),
        pytest.param(np.array([b"a"], object), np.array(["a"], object), DType.BYTES, 0.0, id="same text"),
        pytest.param(np.array([b"a"], object), np.array([b"b"], object), DType.BYTES, 1.0, id="other text"),
    ],
)
def test_a_difference_is_relative_to_the_output_s_own_scale(
    actual: np.ndarray, reference: np.ndarray, dtype: DType, want: float
) -> None:
    (part,) = _compare(actual, reference, dtype)
    assert part.difference == pytest.approx(want)


@pytest.mark.parametrize(
    ("policy", "want"),
    [
        (PrecisionPolicy(), 1e-3),
        (PrecisionPolicy(default=Precision.TF32), 1e-2),
        (PrecisionPolicy(default=Precision.FP16), 1e-2),
        (PrecisionPolicy(default=Precision.BF16), 8e-2),
        (PrecisionPolicy(default=Precision.INT8), 1e-1),
        (PrecisionPolicy(default=Precision.FP8), 2.5e-1),
    ],
)
def test_the_default_limit_follows_from_the_precision(policy: PrecisionPolicy, want: float) -> None:
    assert Arithmetic(precision=policy).limit_of("y") == want


@pytest.mark.parametrize(
    ("rounding", "want"),
    [
        pytest.param(1e-6, 1e-3, id="an ordinary model"),
        pytest.param(3e-4, 3e-3, id="one that amplifies the last bits"),
        pytest.param(0.5, 1e-1, id="one whose answers are noise"),
    ],
)
def test_an_output_that_amplifies_the_last_bits_has_a_wider_default_limit(rounding: float, want: float) -> None:
    arithmetic = Arithmetic(rounding={"y": rounding})
    assert arithmetic.limit_of("y") == pytest.approx(want)
    assert arithmetic.limit_of("fine") == 1e-3
    assert _judged(want * 0.9, None, arithmetic=arithmetic).status is VerificationStatus.PASSED
    assert _judged(want * 1.1, None, arithmetic=arithmetic).status is VerificationStatus.FAILED
    assert _judged(want * 0.9, 1e-9, arithmetic=arithmetic).status is VerificationStatus.FAILED


def test_a_server_that_verifies_later_judges_by_the_same_limits() -> None:
    arithmetic = Arithmetic(rounding={"y": 3e-4})
    stored = not_run(VerificationPolicy(), arithmetic, "no GPU here")
    policy = VerificationPolicy(limit=stored.limit, mismatches=stored.mismatches, outputs=stored.outputs)
    differences = (OutputDifference(output="y", profile="p", difference=2e-3, scale=1.0),)
    assert judge_differences(differences, policy, Arithmetic()).status is VerificationStatus.PASSED


@pytest.mark.parametrize(
    ("precision", "want", "want_not"),
    [
        (Precision.FP32, "look like real ones", "FP32"),
        (Precision.TF32, "choose fp32", "precision.keep"),
        (Precision.FP16, "precision.keep", "look like"),
    ],
)
def test_the_cure_fits_the_precision(precision: Precision, want: str, want_not: str) -> None:
    with pytest.raises(VerificationError) as failure:
        raise_if_failed(_judged(0.5, 0.01), Arithmetic(precision=PrecisionPolicy(default=precision)))
    assert want in failure.value.remedy
    assert want_not not in failure.value.remedy


def test_the_cure_of_another_number_of_boxes_is_no_limit() -> None:
    found = "its shape is [30, 3], the reference's [29, 3]"
    differences = (OutputDifference(output="boxes", profile="p", difference=math.inf, found=found),)
    arithmetic = Arithmetic(precision=PrecisionPolicy(default=Precision.FP16))
    with pytest.raises(VerificationError) as failure:
        raise_if_failed(judge_differences(differences, VerificationPolicy(), arithmetic), arithmetic)
    assert found in failure.value.why
    assert "NonMaxSuppression" in failure.value.remedy
    assert "verification.limit" not in failure.value.remedy


def _judged(
    difference: float, limit: float | None, scale: float = 1.0, arithmetic: Arithmetic | None = None
) -> Verification:
    arithmetic = arithmetic or Arithmetic()
    differences = (
        OutputDifference(output="fine", profile="p", difference=0.0, scale=1.0),
        OutputDifference(output="y", profile="p", difference=difference, scale=scale),
    )
    return judge_differences(differences, VerificationPolicy(limit=limit), arithmetic)


@pytest.mark.parametrize(
    ("difference", "limit", "want"),
    [
        (5e-4, None, VerificationStatus.PASSED),
        (5e-3, None, VerificationStatus.FAILED),
        (5e-3, 5e-3, VerificationStatus.PASSED),
        (0.0, 0.0, VerificationStatus.PASSED),
        (math.inf, 1e9, VerificationStatus.FAILED),
        (math.nan, 1e9, VerificationStatus.FAILED),
        (math.inf, math.inf, VerificationStatus.FAILED),
    ],
)
def test_a_limit_judges_what_was_measured(difference: float, limit: float | None, want: VerificationStatus) -> None:
    assert _judged(difference, limit).status is want


@pytest.mark.parametrize(
    ("inputs", "want"),
    [
        ({"x": InputValues(range=(-4, 4))}, "generated inputs"),
        ({"x": InputValues(npz="x.npz")}, "reference inputs, x from its file"),
        ({name: InputValues(npz="x.npz") for name in "abcde"}, "reference inputs, a, b, c and 2 more from their files"),
    ],
)
def test_the_result_says_whose_inputs_it_was_judged_on(inputs: dict[str, InputValues], want: str) -> None:
    assert judge_differences((), VerificationPolicy(inputs=inputs), Arithmetic()).judged_on == want


def test_a_failure_names_the_worst_output_its_difference_the_limit_and_the_way_out() -> None:
    with pytest.raises(VerificationError) as failure:
        raise_if_failed(_judged(0.0525, 0.01), Arithmetic(precision=PrecisionPolicy(default=Precision.FP16)))
    assert "output 'y', profile 'p': max|a-b|/max|b| is 0.0525, limit 0.01 (1 of 2" in str(failure.value)
    assert "precision.keep" in failure.value.remedy


def test_a_pass_on_references_near_zero_says_that_it_proves_little() -> None:
    verification = _judged(1e-4, None, scale=5e-7)
    assert verification.status is VerificationStatus.PASSED
    assert "'y' (at most 5e-07)" in verification.reason
    assert "fine" not in verification.reason


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(SpecError) as refusal:
        judge_differences((), VerificationPolicy(metric="cosine"), Arithmetic())
    assert refusal.value.where == "verification.metric"


def test_infinity_survives_the_manifest() -> None:
    verification = _judged(math.inf, None)
    assert Verification.from_json(verification.to_json()) == verification
