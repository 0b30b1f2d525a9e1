"""The decision: what is to be prepared, built and served where for one document, or every reason why not.

    check_document ── match_nodes ── group_candidates ── choose_toolchain ── keys, requests, deployment
      (whole)          (per target)    (per product)       (per group)         (values)

It is pure: no I/O, no client, no clock. A target that cannot be served never takes the others with it.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from enginesmith_contract.backends import Backend, Hardware, Toolchain
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import PlanRefusedError
from enginesmith_contract.matrix.products import did_you_mean_product
from enginesmith_contract.matrix.query import capability_of
from enginesmith_contract.preparation import PreparationRequest
from enginesmith_contract.products import canonical_product
from enginesmith_contract.profile_checks import suggest_profile
from enginesmith_contract.record import Record
from enginesmith_operator.api.inference_engine import InferenceEngine, warnings
from enginesmith_operator.api.targets import GpuSpec, TargetSpec
from enginesmith_operator.planning.candidates import (
    Candidate,
    Matches,
    group_candidates,
    keep_one_resource,
    match_nodes,
    needs_gpu,
)
from enginesmith_operator.planning.checks import (
    check_document,
    check_dtypes,
    check_product_policy,
    check_toolchain_policy,
    known_facts,
)
from enginesmith_operator.planning.conditions import (
    KEYS_RESOLVED,
    NODES_MISSING,
    PLANNED,
    UPDATE_AVAILABLE,
    Condition,
)
from enginesmith_operator.planning.desired import (
    Deployment,
    build_request,
    engine_key_inputs,
    preparation_key_of,
    preparation_request,
    served_model,
)
from enginesmith_operator.planning.hardware import Presence
from enginesmith_operator.planning.refusals import NodeRefusal, Refusal, RefusalCount, count_refusals
from enginesmith_operator.planning.snapshot import Observed
from enginesmith_operator.planning.toolchains import Choice, choose_toolchain, toolchain_text, usable_toolchains

__all__ = ["EnginePlan", "Plan", "TargetPlan", "TargetState", "plan", "refusal_error"]


class TargetState(StrEnum):
    """What becomes of a target. `BUILD_ONLY`: its engine is built here, for hardware that is elsewhere."""

    PLANNED = "planned"
    BUILD_ONLY = "buildOnly"
    REFUSED = "refused"


class EnginePlan(Record):
    """One engine: one product (or CPU architecture) with one toolchain.

    Attributes:
        hardware: of the first node; keys use product, slice and platform of it only.
        why: of the toolchain, as a clause.
        nodes: that serve it, in natural order of names; node classes are "class <name>".
        build_nodes: that may build it.
        waits_for_class: only node classes match, so no node is there now.
        engine_key: None: pending.
        stored: the store has it; nothing is built.
        build: None while the key is pending.
        doubts: what the matrix cannot tell; the pod finds out.
        newer: a newer toolchain that the pin keeps out.
    """

    hardware: Hardware
    toolchain: Toolchain
    why: str
    nodes: tuple[str, ...]
    build_nodes: tuple[str, ...]
    waits_for_class: bool = False
    engine_key: str | None = None
    stored: bool = False
    build: BuildRequest | None = None
    doubts: tuple[str, ...] = ()
    newer: Toolchain | None = None


class TargetPlan(Record):
    """What becomes of one target.

    Attributes:
        refusals: why nodes are left out, counted; the whole answer where the state is `refused`.
        hints: sentences that help to get to a yes ("did you mean").
        deployment: None unless the state is `planned`.
    """

    name: str
    state: TargetState
    standby: bool = False
    engines: tuple[EnginePlan, ...] = ()
    deployment: Deployment | None = None
    refusals: tuple[RefusalCount, ...] = ()
    hints: tuple[str, ...] = ()


class Plan(Record):
    """What becomes of one document.

    Attributes:
        made_at: the `now` that was given.
        preparation_key: None: pending, since the model's digest is not known.
        prepared: the preparation with this key exists.
        refusals: what forbids every target.
        suggestion: YAML to paste, where the model needs a profile.
        warnings: allowed, and probably not meant.
    """

    name: str
    namespace: str | None = None
    made_at: datetime
    preparation_key: str | None = None
    prepared: bool = False
    preparation: PreparationRequest
    targets: tuple[TargetPlan, ...]
    refusals: tuple[Refusal, ...] = ()
    suggestion: str = ""
    conditions: tuple[Condition, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def has_target(self) -> bool:
        """Whether at least one target is built or served."""
        return any(target.state is not TargetState.REFUSED for target in self.targets)


def plan(engine: InferenceEngine, observed: Observed, now: datetime) -> Plan:
    """Decide what is to be done for `engine`, given all that was seen."""
    spec = engine.spec
    refusals = check_document(spec, observed)
    key = preparation_key_of(spec, observed)
    targets: list[TargetPlan] = []
    for target in spec.targets:
        planned = _refused(target, ()) if refusals else _plan_target(engine, target, observed, key)
        targets.append(_with_standby(planned, target, targets, observed))
    chosen = tuple(one.toolchain for target in targets for one in target.engines)
    facts = known_facts(observed)
    missing = any(refusal.rule == "ProfileMissing" for refusal in refusals)
    return Plan(
        name=engine.metadata.name,
        namespace=engine.metadata.namespace,
        made_at=now,
        preparation_key=key,
        prepared=observed.preparation is not None and observed.preparation.preparation_key == key,
        preparation=preparation_request(spec, chosen),
        targets=tuple(targets),
        refusals=refusals,
        suggestion=suggest_profile(facts) if facts is not None and missing else "",
        conditions=_conditions(key, targets, refusals),
        warnings=warnings(spec),
    )


def refusal_error(refused: Plan) -> PlanRefusedError:
    """Return the error of a document none of whose targets has a plan."""
    lines = [refusal.sentence() for refusal in refused.refusals]
    for target in refused.targets:
        lines += [f"target {target.name}: {count.sentence()}" for count in target.refusals]
        lines += [f"target {target.name}: {hint}" for hint in target.hints]
    return PlanRefusedError(
        "no target can be built or served here",
        where=refused.name,
        why="\n  ".join(["", *lines]).rstrip(),
        remedy=f"add this below spec:\n{refused.suggestion}" if refused.suggestion else "",
    )


def _plan_target(engine: InferenceEngine, target: TargetSpec, observed: Observed, key: str | None) -> TargetPlan:
    forbidden = check_dtypes(target, observed)
    if forbidden:
        return _refused(target, (NodeRefusal(node="every node", refusal=refusal) for refusal in forbidden))
    matches = keep_one_resource(match_nodes(target, engine.spec, observed))
    if not matches.candidates:
        return _no_candidate(engine, target, observed, matches, key)
    engines: list[EnginePlan] = []
    groups: list[tuple[Candidate, ...]] = []
    refusals = list(matches.refusals)
    for group in group_candidates(matches.candidates):
        planned, left_out = _plan_group(engine, target, group, observed, key)
        refusals += left_out
        if planned is not None:
            engines.append(planned)
            groups.append(tuple(one for one in group if one.node in planned.nodes))
    if not engines:
        return _refused(target, refusals)
    return TargetPlan(
        name=target.name,
        state=TargetState.PLANNED,
        standby=target.standby,
        engines=tuple(engines),
        deployment=_deployment(engine, target, observed, engines, [one for group in groups for one in group]),
        refusals=count_refusals(refusals),
    )


def _plan_group(
    engine: InferenceEngine, target: TargetSpec, group: tuple[Candidate, ...], observed: Observed, key: str | None
) -> tuple[EnginePlan | None, tuple[NodeRefusal, ...]]:
    policy = check_product_policy(group[0].hardware.product, observed)
    if policy is not None:
        return None, tuple(NodeRefusal(node=one.node, refusal=policy) for one in group)
    choice = choose_toolchain(target, engine.spec, group, observed)
    if not isinstance(choice, Choice):
        return None, choice
    policy = check_toolchain_policy(choice.toolchain.name, observed)
    if policy is not None:
        return None, tuple(NodeRefusal(node=one.node, refusal=policy) for one in group)
    planned = _engine_plan(engine, choice, observed, key)
    # TensorRT for RTX compiles ahead of time on any CPU; an engine that the store has needs no builder.
    if planned.build_nodes or planned.stored or choice.toolchain.backend is Backend.TENSORRT_RTX:
        return planned, choice.refusals
    lacking = [NodeRefusal(node=one.node, refusal=refusal) for one in choice.fits for refusal in one.build_refusals]
    return None, (*choice.refusals, *lacking)


def _engine_plan(engine: InferenceEngine, choice: Choice, observed: Observed, key: str | None) -> EnginePlan:
    hardware = choice.fits[0].hardware
    builders = [one for one in choice.fits if one.can_build]
    request = None
    if key is not None:
        inputs = engine_key_inputs(engine.spec, key, choice.toolchain, hardware)
        built_on = builders[0].hardware if builders else hardware
        request = build_request(engine.spec, inputs, choice.toolchain, built_on, observed)
    return EnginePlan(
        hardware=hardware,
        toolchain=choice.toolchain,
        why=choice.why,
        nodes=tuple(one.node for one in choice.fits),
        build_nodes=tuple(one.node for one in builders),
        waits_for_class=all(one.from_class for one in choice.fits),
        engine_key=request.engine_key if request else None,
        stored=request is not None and request.engine_key in observed.engine_keys,
        build=request,
        doubts=choice.doubts,
        newer=choice.newer,
    )


def _deployment(
    engine: InferenceEngine,
    target: TargetSpec,
    observed: Observed,
    engines: list[EnginePlan],
    candidates: list[Candidate],
) -> Deployment:
    pins = {(one.pin.label, one.pin.value): one.pin for one in candidates if one.pin is not None}
    images = dict.fromkeys(one.toolchain.image for one in engines if one.toolchain.image)
    return Deployment(
        target=target.name,
        replicas=None if target.autoscaling else target.replicas,
        standby=target.standby,
        serves=True,
        resource=min((one.resource for one in candidates if one.resource), default=None),
        gpus=(target.gpu or GpuSpec()).count if needs_gpu(target) else 0,
        pins=tuple(pins[key] for key in sorted(pins)),
        models=tuple(served_model(engine, target, one.engine_key, observed) for one in engines if one.engine_key),
        images=tuple(images),
    )


def _with_standby(planned: TargetPlan, target: TargetSpec, earlier: list[TargetPlan], observed: Observed) -> TargetPlan:
    """Put a standby to sleep while a target before it serves; on one machine a target with a plan does."""
    if not target.standby or planned.deployment is None:
        return planned
    ready = {one.target for one in observed.deployments if one.ready_replicas > 0}
    serving = [one for one in earlier if one.deployment is not None and (observed.local or one.name in ready)]
    deployment = planned.deployment.model_copy(update={"serves": not serving})
    return planned.model_copy(update={"deployment": deployment})


def _refused(target: TargetSpec, refusals: Iterable[NodeRefusal], hints: tuple[str, ...] = ()) -> TargetPlan:
    return TargetPlan(
        name=target.name,
        state=TargetState.REFUSED,
        standby=target.standby,
        refusals=count_refusals(refusals),
        hints=hints,
    )


def _no_candidate(
    engine: InferenceEngine, target: TargetSpec, observed: Observed, matches: Matches, key: str | None
) -> TargetPlan:
    """Refuse a target that no node fits, unless an engine for absent hardware is what is wanted."""
    absent = _absent_hardware(target, observed)
    if absent is not None and observed.build_for_absent_gpus:
        group = (Candidate(node="any CPU node", hardware=absent, can_build=True),)
        planned, left_out = _plan_group(engine, target, group, observed, key)
        if planned is None:
            return _refused(target, left_out)
        return TargetPlan(
            name=target.name,
            state=TargetState.BUILD_ONLY,
            standby=target.standby,
            engines=(planned,),
            refusals=count_refusals(matches.refusals),
        )
    hints = []
    asked = target.gpu.product if target.gpu else None
    if asked is not None:
        seen = sorted({facts.product for facts in observed.nodes if facts.product})
        meant = did_you_mean_product(observed.matrix, asked, seen)
        hints += [f"did you mean {meant}?"] if meant and canonical_product(meant) != canonical_product(asked) else []
    usable = usable_toolchains(target, engine.spec, observed)
    # Without any GPU a missing package is not what stands in the way.
    if isinstance(usable, Refusal) and any(facts.presence is Presence.NVIDIA for facts in observed.nodes):
        hints.append(usable.sentence())
    return _refused(target, matches.refusals, tuple(hints))


def _absent_hardware(target: TargetSpec, observed: Observed) -> Hardware | None:
    """Return the hardware that a target names, where its backend can build without having it."""
    if target.backend is not Backend.TENSORRT_RTX or target.gpu is None:
        return None
    asked = target.gpu
    hardware = Hardware(
        product=canonical_product(asked.product) if asked.product else None,
        mig_profile=asked.mig_profile,
        compute_capability=asked.compute_capability,
    )
    capability = capability_of(observed.matrix, hardware)
    return None if capability is None else hardware.model_copy(update={"compute_capability": capability})


def _conditions(key: str | None, targets: list[TargetPlan], refusals: tuple[Refusal, ...]) -> tuple[Condition, ...]:
    found = [_planned_condition(targets, refusals)]
    message = "the model's digest is known" if key else "the model was not fetched yet: keys are pending"
    reason = "DigestKnown" if key else "DigestPending"
    found.append(Condition(type=KEYS_RESOLVED, status=key is not None, reason=reason, message=message))
    newer = [(target.name, one.newer) for target in targets for one in target.engines if one.newer is not None]
    if newer:
        texts = dict.fromkeys(f"{name}: {toolchain_text(toolchain)}" for name, toolchain in newer)
        message = f"{'; '.join(texts)}; set spec.toolchain.update to auto, or raise the range's lower end"
        found.append(Condition(type=UPDATE_AVAILABLE, status=True, reason="NewerToolchain", message=message))
    waiting = [target.name for target in targets if any(one.waits_for_class for one in target.engines)]
    if waiting:
        message = f"no node of {', '.join(waiting)} is there; a pending pod wakes the node class"
        found.append(Condition(type=NODES_MISSING, status=True, reason="ScaledToZero", message=message))
    return tuple(found)


def _planned_condition(targets: list[TargetPlan], refusals: tuple[Refusal, ...]) -> Condition:
    if refusals:
        return Condition(type=PLANNED, status=False, reason=refusals[0].rule, message=refusals[0].sentence())
    refused = [target for target in targets if target.state is TargetState.REFUSED]
    if not refused:
        return Condition(type=PLANNED, status=True, reason="EveryTarget", message="every target has a plan")
    first = refused[0]
    causes = first.refusals
    reason = causes[0].rule if causes else "NoNodes"
    detail = causes[0].sentence() if causes else "no node was seen"
    message = f"{len(refused)} of {len(targets)} targets have no plan; {first.name}: {detail}"
    return Condition(type=PLANNED, status=False, reason=reason, message=message)
