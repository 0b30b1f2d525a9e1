"""The verdict on held-out samples: agreement of decoded answers with the FP32 model's.

Real data makes good engines of FP16 and INT8 differ by all of max|b| in one element, where an edge or a time step
moves, so a ratio cannot decide. What clients take from the values can: the class, the yes or no, the id.

NaN, infinity and another shape decide by themselves. Other measures are alarms. They decide where the agreement proves
little, as where nearly all samples are of one class.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from enginesmith_contract.errors import SpecError
from enginesmith_contract.limits import Arithmetic
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import ReferenceSet
from enginesmith_contract.text import shorten
from enginesmith_contract.verification import (
    GENERATED_INPUTS,
    FirstFall,
    OutputAgreement,
    OutputGate,
    VerificationPolicy,
)
from enginesmith_runtime.build.metric_files import MetricSamples
from enginesmith_runtime.build.reference_files import read_reference
from enginesmith_runtime.comparison.agreement import open_meters
from enginesmith_runtime.comparison.alarms import alarms_of
from enginesmith_runtime.engines.interface import Instance, on_host
from enginesmith_runtime.progress import Reporter

__all__ = [
    "Findings",
    "check_decoding",
    "describe_faults",
    "describe_inputs",
    "describe_samples",
    "judge_agreements",
    "measure_agreements",
    "samples_that_decide",
    "with_limits",
]

_MOST_NAMED = 3
_ENOUGH_SAMPLES = 30
_NAMES = 64


class Findings(NamedTuple):
    """What agreements say: faults end the engine, the worst first; alarms and notes do not."""

    faults: tuple[str, ...]
    alarms: tuple[str, ...]
    notes: tuple[str, ...]


def samples_that_decide(references: Iterable[ReferenceSet], arithmetic: Arithmetic) -> tuple[ReferenceSet, ...]:
    """Return the held-out samples; none for an engine in FP32, which repeats every value and is judged by ratio."""
    return tuple(one for one in references if one.is_sample) if arithmetic.is_reduced else ()


def measure_agreements(
    instance: Instance,
    manifest: Manifest,
    samples: Sequence[ReferenceSet],
    folder: Path,
    reporter: Reporter,
    policy: VerificationPolicy,
    metric: MetricSamples | None = None,
) -> tuple[OutputAgreement, ...]:
    """Run the samples; returns the agreement of each output, none where there are no samples.

    Args:
        instance: of the engine.
        manifest: of the engine.
        samples: with inputs of its profiles.
        folder: has their files under their own paths.
        reporter: in the stage `verify`; may cancel.
        policy: says how outputs are decoded.
        metric: receives what a user's metric judges; None: there is none.
    """
    if not samples:
        return ()
    paths = [folder / one.file.path for one in samples]
    tolerances = {spec.name: manifest.arithmetic.limit_of(spec.name) for spec in manifest.outputs}
    meters = open_meters(manifest.outputs, policy.outputs or {}, paths, tolerances)
    profiles = {profile.name: index for index, profile in enumerate(manifest.profiles)}
    for done, sample in enumerate(samples):
        reporter.advance(done / len(samples), f"sample {sample.point}")
        inputs, expected = read_reference(folder / sample.file.path, manifest.inputs)
        answers = on_host(instance.infer(inputs, profile=profiles[sample.profile], outputs=tuple(expected)))
        if metric is not None:
            metric.add(sample, inputs, expected, answers, manifest.outputs)
        for name, meter in meters.items():
            meter.add(sample.point, answers[name], expected[name])
    return tuple(meter.result() for meter in meters.values())


def check_decoding(agreements: Iterable[OutputAgreement], policy: VerificationPolicy) -> None:
    """Refuse a policy that decodes an output otherwise than it was measured.

    Raises:
        SpecError: `DecodeChanged`.
    """
    for one in agreements:
        asked = (policy.outputs or {}).get(one.output, OutputGate())
        kept = {"decode": one.decode, "axis": one.axis, "threshold": one.threshold}
        for field, value in kept.items():
            wanted = getattr(asked, field)
            if wanted is not None and wanted != value:
                raise SpecError(
                    "the stored engine was judged with another decoding",
                    where=f"verification.outputs.{one.output}.{field}",
                    why=f"the spec says {wanted}, and the engine was judged with {'none' if value is None else value}",
                    remedy="set build.epoch to another number: the engine is built and judged again",
                    reason="DecodeChanged",
                )


def with_limits(agreements: Sequence[OutputAgreement], policy: VerificationPolicy) -> tuple[OutputAgreement, ...]:
    """Return agreements with the limit of each; None where a user's metric decides in its place."""
    limits = {
        one.output: policy.agreement_of(one.output, one.decode)
        if policy.metric_container is None
        else policy.asked_agreement_of(one.output)
        for one in agreements
    }
    return tuple(one.model_copy(update={"limit": limits[one.output]}) for one in agreements)


def judge_agreements(agreements: Sequence[OutputAgreement], beyond: Mapping[str, str] | None = None) -> Findings:
    """Hold agreements against their limits.

    Args:
        agreements: with limits.
        beyond: by output whose agreement proves little, what else is beyond its default limit.
    """
    faults: list[tuple[float, str]] = []
    alarms: list[str] = []
    notes: list[str] = []
    for one in agreements:
        said = ", ".join((*alarms_of(one), *filter(None, [(beyond or {}).get(one.output)])))
        if one.found is not None:
            faults.append((-1.0, f"output {one.output!r}: {one.found}"))
        elif one.agreement is not None and one.agreement < (one.limit or 0.0):
            faults.append((one.agreement, f"output {one.output!r}: {_in_words(one)}{said and f'; {said}'}"))
        elif one.unproved is not None:
            note = f"output {one.output!r}: the agreement proves little, for {one.unproved}"
            if said and one.limit is None:
                alarms.append(f"{note}, and its values are far off: {said}")
            elif said:
                faults.append((0.0, f"{note}, and its values are far off: {said}"))
            else:
                notes.append(note)
        elif said:
            alarms.append(f"output {one.output!r}: {said}")
    alarms += _few_samples(agreements)
    return Findings(tuple(words for _, words in sorted(faults)), tuple(alarms), tuple(notes))


def _few_samples(agreements: Sequence[OutputAgreement]) -> Iterator[str]:
    count = max((one.samples for one in agreements if one.limit is not None), default=0)
    if 0 < count < _ENOUGH_SAMPLES:
        yield (
            f"the agreement on {describe_samples(agreements)} says little: give at least {_ENOUGH_SAMPLES}, with more"
            " calibration data or a larger precision.calibration.heldOut"
        )


def describe_faults(faults: Sequence[str], first_fall: FirstFall | None) -> str:
    """Return the worst outputs, and the first tensor that is wrong."""
    more = len(faults) - _MOST_NAMED
    named = [*faults[:_MOST_NAMED], *([f"{more} more"] if more > 0 else [])]
    where = [] if first_fall is None else [f"the first tensor whose SQNR falls: {first_fall.sentence()}"]
    return "; ".join((*named, *where))


def describe_samples(agreements: Sequence[OutputAgreement]) -> str:
    """Return what an engine was judged on."""
    count = max((one.samples for one in agreements), default=0)
    return f"{count} held-out sample{'' if count == 1 else 's'}"


def describe_inputs(policy: VerificationPolicy) -> str:
    """Return what an engine was judged on where there are no samples."""
    given = [name for name, values in policy.inputs.items() if values.npz is not None]
    if not given:
        return GENERATED_INPUTS
    more = f" and {len(given) - _MOST_NAMED} more" if len(given) > _MOST_NAMED else ""
    files = "its file" if len(given) == 1 else "their files"
    return f"reference inputs, {shorten(', '.join(given[:_MOST_NAMED]), _NAMES)}{more} from {files}"


def _in_words(one: OutputAgreement) -> str:
    worst = f"; {one.worst}" if one.worst else ""
    share = f"{one.agreement:.3g} of {one.answers} answers are the FP32 model's"
    return f"{share} ({one.decoded_by()}{worst}), limit {one.limit:g}"
