"""The gate: an engine's answers held against the references that the preparation stored.

The measure is max|a-b| / max|b| over one output, b the FP32 reference: it says what part of the output's own scale the
worst element is off, so one limit fits logits and probabilities alike. An answer with a NaN, an infinity or another
shape differs by infinity.

An output that the references never bring above 2^-10 is held to that scale: the 6e-8 of a saturated sigmoid is the
rounding of numbers near one, and no engine repeats it. Such an output is hardly verified, and the result says so.
"""

import math
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.errors import SpecError, VerificationError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import ReferenceSet
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_contract.verification import (
    OutputDifference,
    Verification,
    VerificationPolicy,
    VerificationStatus,
)
from enginesmith_runtime.engines.interface import Array, Engine, Instance, on_host
from enginesmith_runtime.progress import Reporter

__all__ = [
    "Comparison",
    "Measurement",
    "compare",
    "default_limit",
    "judge",
    "judge_differences",
    "measure",
    "not_run",
    "raise_if_failed",
]

_METRIC: Final = "maxRelative"

# Twenty times the unit roundoff of the arithmetic (Higham, "Accuracy and Stability of Numerical Algorithms", table
# 2.1: fp16 and tf32 2^-11, bf16 2^-8; fp8 E4M3 2^-4, int8 half a step of 127), rounded: rounding errors of a deep
# network grow slowly, since most of them cancel. FP32's own would be 1e-6, which no other order of summation keeps.
_LIMITS: Final[Mapping[Precision, float]] = {
    Precision.FP32: 1e-3,
    Precision.TF32: 1e-2,
    Precision.FP16: 1e-2,
    Precision.BF16: 8e-2,
    Precision.INT8: 1e-1,
    Precision.FP8: 2.5e-1,
}

_SMALLEST_SCALE: Final = 2.0**-10

_LATENCY_RUNS: Final = 20
_LATENCY_SECONDS: Final = 1.0


class Comparison(NamedTuple):
    """One output of one run: the difference as a ratio, the reference's largest absolute value, and what is amiss."""

    difference: float
    scale: float
    found: str | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Differences by output and profile, and the latency in seconds at each profile's opt."""

    differences: tuple[OutputDifference, ...]
    latency_seconds: Mapping[str, float]


def default_limit(precision: PrecisionPolicy, own: Iterable[Precision] = ()) -> float:
    """Return the limit of a policy that names none: the loosest of the precisions that the model may be in.

    Args:
        precision: what the user asked for.
        own: FP16 and BF16, where nodes of the source compute in them.
    """
    used = {precision.default, *own} | ({precision.fallback} if precision.fallback else set())
    return max(_LIMITS[one] for one in used)


def compare(actual: Array, reference: Array, dtype: DType) -> Comparison:
    """Return max|a-b| / max|b|, infinity where the two cannot be compared.

    Args:
        actual: what the engine said; BF16 as its raw bits.
        reference: what the FP32 model said.
        dtype: of `actual`.
    """
    if actual.shape != reference.shape:
        return _incomparable(f"its shape is {list(actual.shape)}, the reference's {list(reference.shape)}")
    if dtype is DType.BYTES:
        same = [_as_bytes(a) == _as_bytes(b) for a, b in zip(actual.ravel(), reference.ravel(), strict=True)]
        return Comparison(0.0, 1.0) if all(same) else _incomparable(f"{same.count(False)} of {len(same)} texts differ")
    a = _as_float(actual, dtype)
    b = _as_float(reference, dtype if reference.dtype == np.uint16 else DType.FP64)
    for name, values in (("it holds", a), ("the reference holds", b)):
        unfit = values.size - int(np.isfinite(values).sum())
        if unfit:
            return _incomparable(f"{name} NaN or infinity in {unfit} of {values.size} values")
    if a.size == 0:
        return Comparison(0.0, 1.0)
    scale = float(np.abs(b).max())
    return Comparison(float(np.abs(a - b).max()) / max(scale, _SMALLEST_SCALE), scale)


def measure(engine: Engine, references: Iterable[ReferenceSet], folder: Path, reporter: Reporter) -> Measurement:
    """Run the engine on every reference.

    Args:
        engine: loaded; its manifest names profiles and outputs.
        references: what to run; their files lie in `folder` under their own paths.
        folder: see above.
        reporter: in the stage `verify`; may cancel.
    """
    sets = tuple(references)
    profiles = {profile.name: index for index, profile in enumerate(engine.manifest.profiles)}
    worst: dict[tuple[str, str], OutputDifference] = {}
    latency: dict[str, float] = {}
    with engine.open_instance() as instance:
        for done, reference in enumerate(sets):
            inputs, outputs = _read_reference(folder / reference.file.path, engine.manifest.inputs)
            index = profiles[reference.profile]
            reporter.advance(done / len(sets), f"profile {reference.profile}, {reference.point}")
            answers = on_host(instance.infer(inputs, profile=index, outputs=tuple(outputs)))
            for spec in engine.manifest.outputs:
                place = (reference.profile, spec.name)
                found = compare(answers[spec.name], outputs[spec.name], spec.dtype)
                one = OutputDifference(
                    output=spec.name, profile=reference.profile, point=reference.point, **found._asdict()
                )
                worst[place] = _worse(worst.get(place), one)
            if reference.point == "opt":
                latency[reference.profile] = _time_inference(instance, inputs, index, tuple(outputs))
    return Measurement(differences=tuple(worst.values()), latency_seconds=latency)


def not_run(
    policy: VerificationPolicy, precision: PrecisionPolicy, reason: str, *, own: Iterable[Precision] = ()
) -> Verification:
    """Return the verification of an engine that nothing here could run; the runtime runs it before Ready."""
    return Verification(
        status=VerificationStatus.NOT_RUN, metric=policy.metric, limit=_limit(policy, precision, own), reason=reason
    )


def judge(manifest: Manifest, policy: VerificationPolicy) -> Verification:
    """Hold a stored manifest's measured differences against a policy, which may have changed since; builds nothing.

    Raises:
        SpecError: the metric is unknown.
    """
    measured = manifest.verification
    if measured.status is VerificationStatus.NOT_RUN:
        return not_run(policy, manifest.precision, measured.reason, own=manifest.own_precisions)
    return judge_differences(measured.differences, policy, manifest.precision, own=manifest.own_precisions)


def judge_differences(
    differences: tuple[OutputDifference, ...],
    policy: VerificationPolicy,
    precision: PrecisionPolicy,
    *,
    own: Iterable[Precision] = (),
) -> Verification:
    """Return `passed` where every difference is within the limit, else `failed` with the worst one in the reason."""
    limit = _limit(policy, precision, own)
    beyond = [one for one in differences if not (math.isfinite(one.difference) and one.difference <= limit)]
    worst = max(beyond, key=lambda one: math.inf if math.isnan(one.difference) else one.difference, default=None)
    reason = _describe_silent_outputs(differences)
    if worst is not None:
        point = "" if worst.point is None else f", {worst.point}"
        reason = (
            f"output {worst.output!r}, profile {worst.profile!r}{point}: {_in_words(worst)}, limit {limit:g}"
            f" ({len(beyond)} of {len(differences)} outputs over all profiles are beyond it)"
        )
    return Verification(
        status=VerificationStatus.FAILED if beyond else VerificationStatus.PASSED,
        metric=policy.metric,
        limit=limit,
        differences=differences,
        reason=reason,
    )


def raise_if_failed(verification: Verification) -> None:
    """Turn a failed verification into an error.

    Raises:
        VerificationError: with the worst output, its difference, the limit and what can be done.
    """
    if verification.status is not VerificationStatus.FAILED:
        return
    raise VerificationError(
        "the engine's answers differ from the ONNX model's",
        where="verification",
        why=verification.reason,
        remedy=(
            "keep the layers that lose precision in FP32 (precision.keep, or precision.autoKeep: true), choose a wider"
            " precision, or raise verification.limit if the task bears it"
        ),
    )


def _limit(policy: VerificationPolicy, precision: PrecisionPolicy, own: Iterable[Precision]) -> float:
    if policy.metric != _METRIC:
        raise SpecError(
            "no such metric",
            where="verification.metric",
            why=f"{policy.metric!r} is not {_METRIC!r}",
            remedy=f"use {_METRIC}",
        )
    return policy.limit if policy.limit is not None else default_limit(precision, own)


def _describe_silent_outputs(differences: tuple[OutputDifference, ...]) -> str:
    silent = {one.output: one.scale for one in differences if one.scale is not None and one.scale < _SMALLEST_SCALE}
    if not silent:
        return ""
    named = ", ".join(f"{output!r} (at most {scale:.3g})" for output, scale in silent.items())
    return f"hardly verified, for the references are near zero: {named}; verification.inputs can give better ones"


def _incomparable(found: str) -> Comparison:
    return Comparison(math.inf, 1.0, found)


def _worse(before: OutputDifference | None, found: OutputDifference) -> OutputDifference:
    """Return the larger difference with the larger scale of the two."""
    if before is None:
        return found
    scale = max(before.scale or 0.0, found.scale or 0.0)
    return (found if found.difference > before.difference else before).model_copy(update={"scale": scale})


def _in_words(worst: OutputDifference) -> str:
    if math.isfinite(worst.difference):
        return f"max|a-b|/max|b| is {worst.difference:.3g}"
    return worst.found or "it holds NaN or infinity, or has another shape"


def _read_reference(path: Path, inputs: Iterable[TensorSpec]) -> tuple[dict[str, Array], dict[str, Array]]:
    text = {spec.name for spec in inputs if spec.dtype is DType.BYTES}
    found: dict[str, dict[str, Array]] = {"input": {}, "output": {}}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            kind, _, name = key.partition(":")
            array = np.asarray(archive[key])
            # Strings are stored in numpy's own fixed-width types, for pickles are code.
            shaped = array.astype(object) if name in text and kind == "input" else array
            found[kind][name] = shaped if shaped.ndim == 0 else np.ascontiguousarray(shaped)
    return found["input"], found["output"]


def _time_inference(instance: Instance, inputs: Mapping[str, Array], profile: int, outputs: tuple[str, ...]) -> float:
    """Return the median of up to 20 inferences within a second; the verification run before it was the warm-up."""
    seconds: list[float] = []
    deadline = time.perf_counter() + _LATENCY_SECONDS
    while len(seconds) < _LATENCY_RUNS:
        begin = time.perf_counter()
        instance.infer(inputs, profile=profile, outputs=outputs)
        end = time.perf_counter()
        seconds.append(end - begin)
        if end > deadline:
            break
    return statistics.median(seconds)


def _as_float(array: Array, dtype: DType) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    if dtype is DType.BF16:
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64)


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
