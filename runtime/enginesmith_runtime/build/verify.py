"""The gate: an engine's answers held against the references that the preparation stored.

The measure is max|a-b| / max|b|, b the FP32 reference: it says what part of the scale the worst element is off, so one
limit fits logits and probabilities alike. The scale is that of the output, or of a group of its slices (see
`output_scales`). Integers, ids, booleans and texts are judged by the share that differs (see `compare`).

An output that the references never bring above 2^-10 is held to that scale: the 6e-8 of a saturated sigmoid is the
rounding of numbers near one, and no engine repeats it. Such an output is hardly verified, and the result says so.
"""

import math
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.errors import SpecError, VerificationError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import ReferenceSet
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_contract.verification import (
    OutputDifference,
    OutputGate,
    Verification,
    VerificationPolicy,
    VerificationStatus,
    check_outputs,
)
from enginesmith_runtime.build.compare import as_floats, compare, is_exact
from enginesmith_runtime.build.output_scales import SMALLEST_SCALE, OutputScales, learn_scales
from enginesmith_runtime.engines.interface import Array, Engine, Instance, on_host
from enginesmith_runtime.progress import Reporter

__all__ = [
    "Measurement",
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

_MOST_NAMED: Final = 8

_LATENCY_RUNS: Final = 20
_LATENCY_SECONDS: Final = 1.0


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
    return max(_LIMITS[one] for one in (precision.default, *own))


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
    scales = _learn_all(engine.manifest, [folder / one.file.path for one in sets])
    worst: dict[tuple[str, str, bool], OutputDifference] = {}
    latency: dict[str, float] = {}
    with engine.open_instance() as instance:
        for done, reference in enumerate(sets):
            inputs, outputs = _read_reference(folder / reference.file.path, engine.manifest.inputs)
            index = profiles[reference.profile]
            reporter.advance(done / len(sets), f"profile {reference.profile}, {reference.point}")
            answers = on_host(instance.infer(inputs, profile=index, outputs=tuple(outputs)))
            for spec in engine.manifest.outputs:
                for one in _differences(spec, answers, outputs, scales.get(spec.name), reference):
                    place = (reference.profile, spec.name, one.mismatches is None)
                    worst[place] = _worse(worst.get(place), one)
            if reference.point == "opt":
                latency[reference.profile] = _time_inference(instance, inputs, index, tuple(outputs))
    return Measurement(differences=tuple(worst.values()), latency_seconds=latency)


def not_run(
    policy: VerificationPolicy, precision: PrecisionPolicy, reason: str, *, own: Iterable[Precision] = ()
) -> Verification:
    """Return the verification of an engine that nothing here could run; the runtime runs it before Ready."""
    return _verdict(VerificationStatus.NOT_RUN, policy, precision, own).model_copy(update={"reason": reason})


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
    """Return `passed` where every difference is within the limit, else `failed` with the worst one in the reason.

    Raises:
        SpecError: the metric is unknown, or the policy names an output that there is not.
    """
    check_outputs(policy, (one.output for one in differences))
    gates = {one.output: _gate(one.output, policy, precision, own) for one in differences}
    beyond = [one for one in differences if _excess(one, gates[one.output]) > 1]
    worst = max(beyond, key=lambda one: _excess(one, gates[one.output]), default=None)
    reason = _describe_silent_outputs(differences)
    if worst is not None:
        point = "" if worst.point is None else f", {worst.point}"
        reason = (
            f"output {worst.output!r}, profile {worst.profile!r}{point}: {_in_words(worst, gates[worst.output])}"
            f" ({len(beyond)} of {len(differences)} outputs over all profiles are beyond it)"
        )
    status = VerificationStatus.FAILED if beyond else VerificationStatus.PASSED
    verdict = _verdict(status, policy, precision, own)
    return verdict.model_copy(update={"differences": differences, "reason": reason})


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
            " precision, or raise verification.limit if the task allows it (verification.mismatches for integers, ids"
            " and booleans; verification.outputs for one output)"
        ),
    )


def _verdict(
    status: VerificationStatus, policy: VerificationPolicy, precision: PrecisionPolicy, own: Iterable[Precision]
) -> Verification:
    return Verification(
        status=status,
        metric=policy.metric,
        limit=_limit(policy, precision, own),
        mismatches=policy.mismatches,
        outputs=policy.outputs,
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


@dataclass(frozen=True, kw_only=True)
class _Gate:
    """The limits of one output; `by_ratio`: integers are judged by ratio as well."""

    limit: float
    mismatches: float
    by_ratio: bool


def _gate(output: str, policy: VerificationPolicy, precision: PrecisionPolicy, own: Iterable[Precision]) -> _Gate:
    asked = (policy.outputs or {}).get(output, OutputGate())
    shares = [share for share in (asked.mismatches, policy.mismatches) if share is not None]
    return _Gate(
        limit=_limit(policy, precision, own) if asked.limit is None else asked.limit,
        mismatches=shares[0] if shares else 0.0,
        by_ratio=asked.limit is not None and asked.mismatches is None,
    )


def _excess(one: OutputDifference, gate: _Gate) -> float:
    """Return how many times its limit a difference is: above 1 is beyond, whatever the kind."""
    found, allowed = (
        (one.difference, gate.limit) if one.mismatches is None or gate.by_ratio else (one.mismatches, gate.mismatches)
    )
    if not math.isfinite(found):
        return math.inf
    return found / allowed if allowed else math.inf if found else 0.0


def _describe_silent_outputs(differences: tuple[OutputDifference, ...]) -> str:
    words: dict[str, str] = {}
    for one in differences:
        if one.mismatches is None and one.scale is not None and one.scale < SMALLEST_SCALE:
            words[one.output] = f"{one.output!r} (at most {one.scale:.3g})"
        elif one.silent is not None:
            words.setdefault(one.output, f"{one.output!r} ({one.silent})")
    if not words:
        return ""
    named = ", ".join(words.values())
    return f"hardly verified, for the references are near zero: {named}; verification.inputs can give better ones"


def _learn_all(manifest: Manifest, paths: list[Path]) -> dict[str, OutputScales]:
    """Return the scales of every float output over all references; one output's answers are in memory at a time."""
    scales = {}
    for spec in manifest.outputs:
        if is_exact(spec.dtype) or not paths:
            continue
        answers = []
        for path in paths:
            with np.load(path, allow_pickle=False) as archive:
                values = as_floats(np.asarray(archive[f"output:{spec.name}"]), spec.dtype)
            answers.append(values if spec.dtype is DType.FP64 else values.astype(np.float32))
        scales[spec.name] = learn_scales(answers)
    return scales


def _differences(
    spec: TensorSpec,
    answers: Mapping[str, Array],
    outputs: Mapping[str, Array],
    scales: OutputScales | None,
    reference: ReferenceSet,
) -> Iterator[OutputDifference]:
    silent = _name_silent(scales) if scales is not None else None
    for part in compare(answers[spec.name], outputs[spec.name], spec.dtype, scales):
        yield OutputDifference(
            output=spec.name,
            profile=reference.profile,
            point=reference.point,
            silent=silent if part.mismatches is None else None,
            **part._asdict(),
        )


def _name_silent(scales: OutputScales) -> str | None:
    if not scales.silent:
        return None
    named = ", ".join(map(str, scales.silent[:_MOST_NAMED])) + (", ..." if len(scales.silent) > _MOST_NAMED else "")
    return f"axis {scales.axis}, index {named}"


def _worse(before: OutputDifference | None, found: OutputDifference) -> OutputDifference:
    """Return the larger difference with the larger scale of the two."""
    if before is None:
        return found
    scale = max(before.scale or 0.0, found.scale or 0.0)
    worse = max(before, found, key=lambda one: (one.mismatches or 0.0, one.difference))
    return worse.model_copy(update={"scale": scale})


def _in_words(worst: OutputDifference, gate: _Gate) -> str:
    if not math.isfinite(worst.difference):
        return f"{worst.found or 'it holds NaN or infinity, or has another shape'}, limit {gate.limit:g}"
    element = f" ({worst.worst})" if worst.worst else ""
    if worst.mismatches is None or gate.by_ratio:
        return f"max|a-b|/max|b| is {worst.difference:.3g}{element}, limit {gate.limit:g}"
    share = f"a share of {worst.mismatches:.3g} of the integers, ids, booleans or texts differs"
    return f"{share}{element}, limit {gate.mismatches:g}"


def _read_reference(path: Path, inputs: Iterable[TensorSpec]) -> tuple[dict[str, Array], dict[str, Array]]:
    text = {spec.name for spec in inputs if spec.dtype is DType.BYTES}
    found: dict[str, dict[str, Array]] = {"input": {}, "output": {}}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            kind, _, name = key.partition(":")
            array = np.asarray(archive[key])
            # Strings are stored in numpy's own fixed-width types, for pickles are code.
            shaped = array.astype(object) if name in text and kind == "input" else array
            found[kind][name] = np.asarray(shaped, order="C")
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
