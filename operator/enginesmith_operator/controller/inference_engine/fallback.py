"""Finds the current precision of an InferenceEngine from its preparations, builds and pods. Pure.

The status remembers what was refused, since there is one preparation at a time. It is forgotten, and the precision is
tried again, when the spec or the model is another one, or when the failed EngineBuild was deleted.
"""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import chain
from typing import Final

from pydantic import ValidationError

from enginesmith_operator.api.engine_build import BuildPhase, EngineBuildSpec
from enginesmith_operator.api.engine_status import PrecisionRefusal, PreparationPhase
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.controller.inference_engine.preparation import PreparationStep
from enginesmith_operator.controller.inference_engine.snapshot import EngineSnapshot, KnownBuild
from enginesmith_operator.controller.shared.conditions import bounded_line
from enginesmith_operator.planning.fallback import (
    GATE_FAILED,
    compare_latencies,
    following,
    in_half_precision,
    pair_engines,
    refused_by_model,
    refused_by_plan,
    without_refused,
)
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import EnginePlan, Plan
from enginesmith_operator.planning.snapshot import Observed, RefusedPrecision

__all__ = ["find_refusal", "in_wanted_precision", "known_refusals", "with_refusals"]

_PARTS: Final = ("model", "precision", "profiles", "build", "toolchain", "verification")
_LINE: Final = 1024
_HASH_DIGITS: Final = 20


def known_refusals(snapshot: EngineSnapshot) -> tuple[PrecisionRefusal, ...]:
    """Return the refusals in the status that are still valid."""
    digest = _source_digest(snapshot)
    made_of = _made_of(snapshot.engine)
    return tuple(
        # A failed preparation may not have reported its model.
        one if one.source_digest is not None else one.model_copy(update={"source_digest": digest})
        for one in snapshot.status.refused_precisions
        if one.made_of == made_of
        and (one.source_digest is None or digest is None or one.source_digest == digest)
        and (one.build is None or _has_failed_gate(snapshot.builds.get(one.key or "")))
    )


def in_wanted_precision(snapshot: EngineSnapshot, refused: tuple[PrecisionRefusal, ...]) -> EngineSnapshot:
    """Return the snapshot with the engine in the first precision that is not refused."""
    wanted = without_refused(snapshot.engine, {one.precision for one in refused})
    return replace(snapshot, engine=wanted)


def with_refusals(observed: Observed, refused: tuple[PrecisionRefusal, ...]) -> Observed:
    """Return the snapshot with the refused precisions."""
    told = tuple(RefusedPrecision(precision=one.precision, reason=one.reason, message=one.message) for one in refused)
    return observed.model_copy(update={"refused_precisions": told})


def find_refusal(
    snapshot: EngineSnapshot, wanted: InferenceEngine, step: PreparationStep, planned: Plan
) -> PrecisionRefusal | None:
    """Return why the next precision takes the place of the wanted one; None: it does not, or there is none.

    Args:
        snapshot: with the engine as the user wrote it.
        wanted: the engine in the precision that is judged.
        step: what is known of the model in it.
        planned: what follows for the targets.
    """
    if following(wanted) is None:
        return None
    found = chain(_refused_before_builds(wanted, step, planned), _refused_by_engines(snapshot, wanted, step, planned))
    first = next(found, None)
    if first is None:
        return None
    refused, build, key = first
    return PrecisionRefusal(
        precision=refused.precision,
        reason=refused.reason,
        message=bounded_line(refused.message, _LINE),
        made_of=_made_of(snapshot.engine),
        source_digest=step.observed.source_digest or _source_digest(snapshot),
        build=build.name if build is not None else None,
        key=key,
    )


_Found = tuple[RefusedPrecision, KnownBuild | None, str | None]


def _refused_before_builds(wanted: InferenceEngine, step: PreparationStep, planned: Plan) -> Iterator[_Found]:
    memory, precision = step.status, wanted.spec.precision.default
    if memory is not None and memory.phase is PreparationPhase.FAILED and memory.failure is not None:
        refused = refused_by_model(precision, memory.failure.reason, memory.failure.sentence())
        if refused is not None:
            yield refused, None, None
    beyond = refused_by_plan(planned)
    if beyond is not None:
        yield beyond, None, None


def _refused_by_engines(
    snapshot: EngineSnapshot, wanted: InferenceEngine, step: PreparationStep, planned: Plan
) -> Iterator[_Found]:
    engines = [one for target in planned.targets for one in target.engines if one.build is not None]
    for one in engines:
        build = snapshot.builds.get(one.engine_key or "")
        if build is not None and build.failure is not None and _has_failed_gate(build) and _is_of(build, one):
            yield _failed(wanted, build.failure.message), build, one.engine_key
    keys = {one.engine_key for one in engines}
    for rejected in (one for target in snapshot.status.targets for one in target.rejected):
        if rejected.key in keys and rejected.reason == GATE_FAILED:
            yield _failed(wanted, f"on node {rejected.node}: {rejected.message}"), None, rejected.key
    for one, half in _pairs(snapshot, wanted, step, planned):
        first, second = snapshot.builds.get(one.engine_key or ""), snapshot.builds.get(half.engine_key or "")
        if first is not None and second is not None:
            product = one.hardware.product
            slower = compare_latencies(wanted, product, first.latency_seconds, second.latency_seconds)
            if slower is not None:
                yield slower, None, one.engine_key


def _pairs(
    snapshot: EngineSnapshot, wanted: InferenceEngine, step: PreparationStep, planned: Plan
) -> Iterator[tuple[EnginePlan, EnginePlan]]:
    """Give the engines for a GPU with those in FP16; none where nothing is compared."""
    half = in_half_precision(wanted)
    if half is None or planned.preparation_key is None:
        return
    # FP16 needs no calibration, and what is known of the prepared model is of this precision.
    changes = {"model_facts": None, "preparation_key": None, "calibration_digest": None}
    observed = step.observed.model_copy(update=changes)
    yield from pair_engines(planned, plan(half, observed, snapshot.now))


def _failed(wanted: InferenceEngine, message: str) -> RefusedPrecision:
    return RefusedPrecision(precision=wanted.spec.precision.default, reason=GATE_FAILED, message=message)


def _has_failed_gate(build: KnownBuild | None) -> bool:
    is_failed = build is not None and build.phase is BuildPhase.FAILED
    return is_failed and build is not None and build.failure is not None and build.failure.reason == GATE_FAILED


def _is_of(build: KnownBuild, planned: EnginePlan) -> bool:
    """Whether a build had the verification that the plan asks for; with another one it is made again."""
    try:
        request = EngineBuildSpec.model_validate(build.spec, by_name=False).request
    except ValidationError:
        return False
    return planned.build is not None and request.verification == planned.build.verification


def _source_digest(snapshot: EngineSnapshot) -> str | None:
    model = snapshot.status.model
    return model.digest if model is not None and model.uri == snapshot.engine.spec.model.uri else None


def _made_of(engine: InferenceEngine) -> str:
    return sha256(engine.spec.model_dump_json(include=set(_PARTS)).encode()).hexdigest()[:_HASH_DIGITS]
