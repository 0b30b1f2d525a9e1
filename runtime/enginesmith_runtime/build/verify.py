"""The gate: an engine's answers held against the references that the preparation stored.

The measure is max|a-b| / max|b|, b the FP32 reference: it says what part of the scale the worst element is off, so one
limit fits logits and probabilities alike. The scale is that of the output, or of a group of its slices (see
`output_scales`). Integers, ids, booleans and texts are judged by the share that differs (see `compare`).

Where the references have held-out samples and the engine computes in less than FP32, that measure is an alarm, and the
agreement of decoded answers on the samples decides (see `sample_gate`).

An output that the references never bring above 2^-10 is held to that scale: the 6e-8 of a saturated sigmoid is the
rounding of numbers near one, and no engine repeats it. Such an output is hardly verified, and the result says so.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enginesmith_contract.errors import SpecError
from enginesmith_contract.limits import Arithmetic
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import ReferenceSet
from enginesmith_contract.tensors import TensorSpec
from enginesmith_contract.verification import (
    Decode,
    FirstFall,
    OutputAgreement,
    OutputDifference,
    OutputGate,
    Verification,
    VerificationPolicy,
    VerificationStatus,
    check_outputs,
)
from enginesmith_runtime.build.kept_layers import with_shortfall
from enginesmith_runtime.build.latency import time_inference
from enginesmith_runtime.build.metric_files import MetricSamples
from enginesmith_runtime.build.reference_files import read_reference
from enginesmith_runtime.build.sample_gate import (
    check_decoding,
    describe_faults,
    describe_inputs,
    describe_samples,
    judge_agreements,
    measure_agreements,
    samples_that_decide,
    with_limits,
)
from enginesmith_runtime.comparison.compare import compare, learn_all_scales
from enginesmith_runtime.comparison.output_scales import SMALLEST_SCALE, OutputScales
from enginesmith_runtime.engines.interface import Array, Engine, on_host
from enginesmith_runtime.progress import Reporter

__all__ = [
    "Measurement",
    "judge",
    "judge_differences",
    "judge_measurement",
    "measure",
    "not_run",
]

_METRIC: Final = "maxRelative"

_MOST_NAMED: Final = 8


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Differences by output and profile, and the latency in seconds at each profile's opt.

    Attributes:
        agreements: of each output on the held-out samples; None: they do not decide here.
    """

    differences: tuple[OutputDifference, ...]
    latency_seconds: Mapping[str, float]
    agreements: tuple[OutputAgreement, ...] | None = None


def measure(
    engine: Engine,
    references: Iterable[ReferenceSet],
    folder: Path,
    reporter: Reporter,
    policy: VerificationPolicy,
    metric: MetricSamples | None = None,
) -> Measurement:
    """Run the engine on every reference.

    Args:
        engine: loaded; its manifest names profiles and outputs.
        references: what to run; their files lie in `folder` under their own paths.
        folder: see above.
        reporter: in the stage `verify`; may cancel.
        policy: says how outputs are decoded.
        metric: receives what a user's metric judges; None: there is none.
    """
    every = tuple(references)
    arithmetic = engine.manifest.arithmetic
    samples = samples_that_decide(every, arithmetic)
    sets = tuple(one for one in every if one not in samples)
    profiles = {profile.name: index for index, profile in enumerate(engine.manifest.profiles)}
    scales = learn_all_scales(engine.manifest.outputs, [folder / one.file.path for one in sets])
    worst: dict[tuple[str, str, bool], OutputDifference] = {}
    latency: dict[str, float] = {}
    with engine.open_instance() as instance:
        for done, reference in enumerate(sets):
            inputs, outputs = read_reference(folder / reference.file.path, engine.manifest.inputs)
            index = profiles[reference.profile]
            reporter.advance(done / len(every), f"profile {reference.profile}, {reference.point}")
            answers = on_host(instance.infer(inputs, profile=index, outputs=tuple(outputs)))
            if metric is not None:
                metric.add(reference, inputs, outputs, answers, engine.manifest.outputs)
            for spec in engine.manifest.outputs:
                for one in _differences(spec, answers, outputs, scales.get(spec.name), reference):
                    place = (reference.profile, spec.name, one.mismatches is None)
                    worst[place] = _worse(worst.get(place), one)
            if reference.point == "opt" and not reference.is_sample:
                latency[reference.profile] = time_inference(instance, inputs, index, tuple(outputs))
        agreements = measure_agreements(instance, engine.manifest, samples, folder, reporter, policy, metric)
    if metric is not None:
        metric.finish(engine.manifest)
    return Measurement(differences=tuple(worst.values()), latency_seconds=latency, agreements=agreements or None)


def not_run(
    policy: VerificationPolicy, arithmetic: Arithmetic, reason: str, references: Iterable[ReferenceSet] = ()
) -> Verification:
    """Return the verification of an engine that nothing here could run; the runtime runs it before Ready."""
    sampled = bool(samples_that_decide(references, arithmetic))
    verdict = _verdict(VerificationStatus.NOT_RUN, policy, arithmetic, sampled=sampled)
    return verdict.model_copy(update={"reason": reason})


def judge(manifest: Manifest, policy: VerificationPolicy) -> Verification:
    """Hold a stored manifest's measured differences against a policy, which may have changed since; builds nothing.

    Raises:
        SpecError: the metric is unknown, or the policy decodes an output otherwise than it was measured.
    """
    measured = manifest.verification
    if measured.status is VerificationStatus.NOT_RUN:
        verdict = not_run(policy, manifest.arithmetic, measured.reason, manifest.references)
    else:
        check_decoding(measured.agreements or (), policy)
        found = Measurement(differences=measured.differences, latency_seconds={}, agreements=measured.agreements)
        verdict = judge_measurement(found, policy, manifest.arithmetic, measured.first_fall, measured.shortfall)
    return verdict.model_copy(update={"first_fall": measured.first_fall, "shortfall": measured.shortfall})


def judge_measurement(
    measurement: Measurement,
    policy: VerificationPolicy,
    arithmetic: Arithmetic,
    first_fall: FirstFall | None = None,
    shortfall: str | None = None,
) -> Verification:
    """Return the verdict: by agreement where samples decide, else by difference.

    Where a user's metric is still to decide, only limits that the policy sets decide here.

    Args:
        measurement: of the engine.
        policy: its limits.
        arithmetic: default limits follow from it.
        first_fall: named where the engine fails.
        shortfall: the same, what `precision.autoKeep` did not reach.

    Raises:
        SpecError: the metric is unknown, or the policy names an output that there is not.
    """
    if measurement.agreements is None and policy.metric_container is None:
        return with_shortfall(judge_differences(measurement.differences, policy, arithmetic), shortfall)
    differences, agreements = measurement.differences, with_limits(measurement.agreements or (), policy)
    check_outputs(policy, [*(one.output for one in differences), *(one.output for one in agreements)])
    beyond = _beyond(differences, policy, arithmetic)
    decisive = [one for one in beyond if not math.isfinite(one.difference) or _is_asked(one, policy)]
    others = [one for one in beyond if one not in decisive]
    unproved = {one.output for one in agreements if one.unproved is not None}
    # The worst comes last.
    far = {
        one.output: _in_words(one, _gate(one.output, policy, arithmetic))
        for one in reversed(others)
        if one.output in unproved
    }
    found = judge_agreements(agreements, far)
    faults = (*(_fault(one, policy, arithmetic) for one in decisive), *found.faults)
    alarms = (*(_fault(one, policy, arithmetic) for one in others if one.output not in far), *found.alarms)
    verdict = _verdict(
        VerificationStatus.FAILED if faults else VerificationStatus.PASSED, policy, arithmetic, sampled=True
    )
    verdict = verdict.model_copy(
        update={
            "differences": differences,
            "agreements": agreements or None,
            "reason": describe_faults(faults, first_fall) if faults else "; ".join(found.notes),
            "judged_on": describe_samples(agreements) if agreements else describe_inputs(policy),
            "alarms": alarms or None,
            "first_fall": first_fall,
        }
    )
    return with_shortfall(verdict, shortfall)


def judge_differences(
    differences: tuple[OutputDifference, ...], policy: VerificationPolicy, arithmetic: Arithmetic
) -> Verification:
    """Return `passed` where every difference is within the limit, else `failed` with the worst one in the reason.

    Raises:
        SpecError: the metric is unknown, or the policy names an output that there is not.
    """
    check_outputs(policy, (one.output for one in differences))
    beyond = _beyond(differences, policy, arithmetic)
    reason = _describe_silent_outputs(differences)
    if beyond:
        reason = (
            f"{_fault(beyond[0], policy, arithmetic)}"
            f" ({len(beyond)} of {len(differences)} outputs over all profiles are beyond it)"
        )
    status = VerificationStatus.FAILED if beyond else VerificationStatus.PASSED
    verdict = _verdict(status, policy, arithmetic, sampled=False)
    return verdict.model_copy(
        update={"differences": differences, "reason": reason, "judged_on": describe_inputs(policy)}
    )


def _verdict(
    status: VerificationStatus, policy: VerificationPolicy, arithmetic: Arithmetic, *, sampled: bool
) -> Verification:
    """Return a verdict with the limits that led to it; where samples decide, only those that the policy sets."""
    limit = _limit(policy, arithmetic.limit)
    return Verification(
        status=status,
        metric=policy.metric,
        limit=policy.limit if sampled else limit,
        mismatches=policy.mismatches,
        agreement=policy.agreement,
        outputs=policy.outputs or None if sampled else _all_gates(policy, arithmetic),
    )


def _beyond(
    differences: Iterable[OutputDifference], policy: VerificationPolicy, arithmetic: Arithmetic
) -> list[OutputDifference]:
    """Return what is beyond its limit, the worst first."""
    gates = {one.output: _gate(one.output, policy, arithmetic) for one in differences}
    beyond = [one for one in differences if _excess(one, gates[one.output]) > 1]
    return sorted(beyond, key=lambda one: -_excess(one, gates[one.output]))


def _is_asked(one: OutputDifference, policy: VerificationPolicy) -> bool:
    """Whether the policy itself sets the limit of a difference."""
    asked = (policy.outputs or {}).get(one.output, OutputGate())
    if one.mismatches is None or asked.limit is not None:
        # With a decode, the limit is that of one value.
        return policy.limit is not None or (asked.limit is not None and asked.decode is not Decode.VALUES)
    return policy.mismatches is not None or asked.mismatches is not None


def _fault(one: OutputDifference, policy: VerificationPolicy, arithmetic: Arithmetic) -> str:
    point = "" if one.point is None else f", {one.point}"
    gate = _gate(one.output, policy, arithmetic)
    return f"output {one.output!r}, profile {one.profile!r}{point}: {_in_words(one, gate)}"


def _all_gates(policy: VerificationPolicy, arithmetic: Arithmetic) -> Mapping[str, OutputGate] | None:
    """Return the policy's limits of single outputs, and those of outputs that amplify the last bits."""
    gates = dict(policy.outputs or {})
    for output in arithmetic.rounding if policy.limit is None else ():
        limit, asked = arithmetic.limit_of(output), gates.get(output, OutputGate())
        if limit > arithmetic.limit and asked.limit is None:
            # With a share of mismatches, ids stay judged by equality.
            share = asked.mismatches if asked.mismatches is not None else policy.mismatches or 0.0
            gates[output] = OutputGate(limit=limit, mismatches=share)
    return gates or None


def _limit(policy: VerificationPolicy, default: float) -> float:
    if policy.metric != _METRIC:
        raise SpecError(
            "no such metric",
            where="verification.metric",
            why=f"{policy.metric!r} is not {_METRIC!r}",
            remedy=f"use {_METRIC}",
        )
    return policy.limit if policy.limit is not None else default


@dataclass(frozen=True, kw_only=True)
class _Gate:
    """The limits of one output; `by_ratio`: integers are judged by ratio as well."""

    limit: float
    mismatches: float
    by_ratio: bool


def _gate(output: str, policy: VerificationPolicy, arithmetic: Arithmetic) -> _Gate:
    asked = (policy.outputs or {}).get(output, OutputGate())
    shares = [share for share in (asked.mismatches, policy.mismatches) if share is not None]
    return _Gate(
        limit=_limit(policy, arithmetic.limit_of(output)) if asked.limit is None else asked.limit,
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
