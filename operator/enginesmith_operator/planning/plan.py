"""The decision: what is to be prepared, built and served where for one document, or every reason why not.

    check_document ── match_nodes ── group_candidates ── choose_toolchain ── keys, requests, deployment
      (whole)          (per target)    (per product)       (per group)         (values)

It is pure: no I/O, no client, no clock. A target that cannot be served never takes the others with it.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.backends import Hardware
from enginesmith_contract.matrix.products import did_you_mean_product
from enginesmith_contract.matrix.query import capability_of
from enginesmith_contract.products import canonical_mig_profile, canonical_product
from enginesmith_contract.profile_suggestions import suggest_profile
from enginesmith_operator.api.conditions import KEYS_RESOLVED, NODES_MISSING, PLANNED, UPDATE_AVAILABLE
from enginesmith_operator.api.inference_engine import InferenceEngine, InferenceEngineSpec, warnings
from enginesmith_operator.api.targets import TargetSpec
from enginesmith_operator.planning.candidates import (
    Candidate,
    Matches,
    group_candidates,
    keep_one_resource,
    match_nodes,
)
from enginesmith_operator.planning.checks import (
    check_document,
    check_dtypes,
    check_nodes,
    check_precision,
    check_target_policies,
    check_values,
    known_facts,
)
from enginesmith_operator.planning.desired import (
    Deployment,
    build_request,
    engine_candidate,
    preparation_key_of,
    preparation_request,
)
from enginesmith_operator.planning.fallback import fallback_condition
from enginesmith_operator.planning.fleet_memo import remembered
from enginesmith_operator.planning.hardware import LabelPin, Presence
from enginesmith_operator.planning.message_sizes import warn_of_messages
from enginesmith_operator.planning.plan_records import Condition, EnginePlan, Plan, TargetPlan, TargetState
from enginesmith_operator.planning.policies import forbids_device
from enginesmith_operator.planning.quick_start import warn_of_quick_start, with_quick_engine
from enginesmith_operator.planning.refusals import (
    NodeRefusal,
    Refusal,
    RefusalCount,
    count_refusals,
    natural_order,
    of_the_spec,
)
from enginesmith_operator.planning.snapshot import Observed
from enginesmith_operator.planning.toolchains import Choice, choose_toolchain, toolchain_text, usable_toolchains

__all__ = ["plan"]


def plan(engine: InferenceEngine, observed: Observed, now: datetime) -> Plan:
    """Decide what is to be done for `engine`, given all that was seen; its precision is the one that is wanted."""
    spec = engine.spec
    changed = fallback_condition(spec.precision.default, observed.refused_precisions)
    refusals = check_document(spec, observed)
    key = preparation_key_of(spec, observed)
    targets: list[TargetPlan] = []
    names = frozenset(target.name for target in spec.targets)
    for target in spec.targets:
        if refusals:
            planned = _refused(target, (), (of_the_spec(refusals),))
        else:
            planned = _plan_target(engine, target, observed, key)
        targets.append(_with_standby(planned, target, targets, observed, names))
    chosen = tuple(one.toolchain for target in targets for one in target.engines)
    facts = known_facts(observed)
    missing = any(refusal.rule == "ProfileMissing" for refusal in refusals)
    return Plan(
        name=engine.metadata.name,
        namespace=engine.metadata.namespace,
        made_at=now,
        preparation_key=key,
        prepared=key is not None and key in _preparation_keys(observed),
        preparation=preparation_request(spec, chosen, observed),
        fallback=spec.precision.fallback,
        targets=tuple(targets),
        refusals=refusals,
        suggestion=suggest_profile(facts) if facts is not None and missing else "",
        conditions=(*_conditions(key, targets, refusals), *changed),
        inherited=observed.inherited,
        warnings=(
            *(f"spec.precision: {one.message}" for one in changed),
            *warnings(spec),
            *warn_of_quick_start(spec, observed),
            *(() if refusals else warn_of_messages(spec, facts, observed)),
        ),
    )


def _plan_target(engine: InferenceEngine, target: TargetSpec, observed: Observed, key: str | None) -> TargetPlan:
    forbidden = (
        *check_target_policies(target, engine.spec, observed),
        *check_dtypes(target, observed),
        *check_values(target, engine.spec, observed),
        *check_nodes(target, observed),
    )
    if forbidden:
        return _refused(target, (NodeRefusal(node="every node", refusal=refusal) for refusal in forbidden))
    question = _question(target, engine.spec, observed)
    survey = remembered(observed, question, lambda: _survey(target, engine.spec, observed))
    if not survey.matches.candidates:
        return _no_candidate(engine, target, observed, survey.matches, key)
    engines, lacking = _plan_engines(engine, target, survey.choice, observed, key)
    engines, hopeless = _without_hopeless(engine.spec, observed, engines)
    lacking += hopeless
    left_out = (*survey.matches.refusals, *survey.refusals, *lacking)
    if not engines:
        return _refused(target, left_out)
    return TargetPlan(
        name=target.name,
        state=TargetState.PLANNED,
        standby=target.standby,
        engines=engines,
        deployment=_deployment(target, observed, engines),
        refusals=count_refusals(left_out) if lacking else survey.counted,
    )


def _without_hopeless(
    spec: InferenceEngineSpec, observed: Observed, engines: tuple[EnginePlan, ...]
) -> tuple[tuple[EnginePlan, ...], tuple[NodeRefusal, ...]]:
    """Leave out engines that would be built only to fail; one that is stored has passed on its hardware."""
    beyond = check_precision(spec, observed)
    if not beyond or all(one.stored for one in engines):
        return engines, ()
    nodes = [node for one in engines if not one.stored for node in one.nodes] or ["every node"]
    refusals = tuple(NodeRefusal(node=node, refusal=refusal) for refusal in beyond for node in nodes)
    return tuple(one for one in engines if one.stored), refusals


class _Survey(NamedTuple):
    """What the fleet answers to one target, of any InferenceEngine.

    Attributes:
        choice: None: no candidate is left, or no toolchain.
        refusals: of candidates, by policies and toolchains.
        counted: all refusals, of nodes that are no candidates too.
    """

    matches: Matches
    choice: Choice | None
    refusals: tuple[NodeRefusal, ...]
    counted: tuple[RefusalCount, ...]


def _question(target: TargetSpec, spec: InferenceEngineSpec, observed: Observed) -> tuple[str, ...]:
    """Return everything that a survey depends on in addition to the fleet."""
    pinned = observed.pinned.get(target.name)
    build = {"hardware_compatibility", "version_compatible"}
    return (
        target.model_dump_json(exclude={"name", "replicas", "autoscaling", "standby", "backend_options"}),
        spec.pod_template.model_dump_json(),
        spec.toolchain.model_dump_json(),
        spec.build.model_dump_json(include=build),
        spec.precision.default.value,
        "" if pinned is None else pinned.model_dump_json(),
        f"{observed.local} {observed.build_for_absent_gpus}",
        *(one.model_dump_json(include={"metadata": {"name"}, "spec": True}) for one in observed.policies),
        f"{any(one.target == target.name for one in observed.deployments)}" if observed.policies else "",
    )


def _survey(target: TargetSpec, spec: InferenceEngineSpec, observed: Observed) -> _Survey:
    matches = keep_one_resource(match_nodes(target, spec, observed))
    choice, refusals = _choose(target, spec, matches.candidates, observed)
    return _Survey(matches, choice, refusals, count_refusals((*matches.refusals, *refusals)))


def _choose(
    target: TargetSpec, spec: InferenceEngineSpec, candidates: tuple[Candidate, ...], observed: Observed
) -> tuple[Choice | None, tuple[NodeRefusal, ...]]:
    allowed: list[Candidate] = []
    refusals: list[NodeRefusal] = []
    for one in candidates:
        forbidden = forbids_device(one.hardware.product, one.hardware.mig_profile, observed.policies)
        if forbidden is None:
            allowed.append(one)
        else:
            refusals.append(NodeRefusal(node=one.node, refusal=forbidden.refusal()))
    if not allowed:
        return None, tuple(refusals)
    choice = choose_toolchain(target, spec, tuple(allowed), observed)
    if not isinstance(choice, Choice):
        return None, (*refusals, *choice)
    return choice, (*refusals, *choice.refusals)


def _plan_engines(
    engine: InferenceEngine, target: TargetSpec, choice: Choice | None, observed: Observed, key: str | None
) -> tuple[tuple[EnginePlan, ...], tuple[NodeRefusal, ...]]:
    """Plan one engine for each product; the pods of a target are of one Deployment, so all have one toolchain."""
    if choice is None:
        return (), ()
    lacking: list[NodeRefusal] = []
    engines: list[EnginePlan] = []
    for group in group_candidates(choice.fits):
        planned = _engine_plan(engine, target, choice, group, observed, key)
        # An engine that the store has needs no builder.
        if planned.build_nodes or planned.stored or traits(choice.toolchain.backend).builds_for_absent_gpus:
            engines.append(with_quick_engine(planned, engine.spec, target, observed))
        else:
            lacking += [NodeRefusal(node=one.node, refusal=why) for one in group for why in one.build_refusals]
    return tuple(engines), tuple(lacking)


def _engine_plan(
    engine: InferenceEngine,
    target: TargetSpec,
    choice: Choice,
    group: tuple[Candidate, ...],
    observed: Observed,
    key: str | None,
) -> EnginePlan:
    hardware = group[0].hardware
    builders = [one for one in group if one.can_build]
    candidate = engine_candidate(engine.spec, target, choice.toolchain, hardware)
    request = None
    if key is not None:
        built_on = builders[0].hardware if builders else hardware
        request = build_request(engine.spec, candidate.key_inputs(key), choice.toolchain, built_on, observed)
    build_pins = _pins(builders)
    build_nodes = tuple(one.node for one in builders)
    return EnginePlan(
        hardware=hardware,
        candidate=candidate,
        toolchain=choice.toolchain,
        why=choice.why,
        nodes=tuple(one.node for one in group),
        build_nodes=build_nodes,
        resource=(builders or group)[0].resource,
        units=(builders or group)[0].units,
        pins=_pins(group),
        build_pins=build_pins,
        build_avoids=_others_with(build_pins, build_nodes, observed),
        waits_for_class=all(one.from_class for one in group),
        engine_key=request.engine_key if request else None,
        stored=request is not None and request.engine_key in observed.engine_keys,
        build=request,
        doubts=choice.doubts,
        newer=choice.newer,
    )


def _pins(candidates: Iterable[Candidate]) -> tuple[LabelPin, ...]:
    pins = {(one.pin.label, one.pin.value): one.pin for one in candidates if one.pin is not None}
    return tuple(pins[key] for key in sorted(pins))


def _others_with(pins: tuple[LabelPin, ...], chosen: tuple[str, ...], observed: Observed) -> tuple[str, ...]:
    """Return the nodes that a pod with these pins could land on and must not."""
    names = frozenset(chosen)
    others = (
        facts.name
        for facts in observed.nodes
        if facts.name not in names and any(pin.fits(facts.labels) for pin in pins)
    )
    return tuple(sorted(others, key=natural_order))


def _deployment(target: TargetSpec, observed: Observed, engines: tuple[EnginePlan, ...]) -> Deployment:
    pins = tuple(dict.fromkeys(pin for one in engines for pin in one.pins))
    nodes = tuple(name for one in engines for name in one.nodes)
    return Deployment(
        replicas=None if target.autoscaling else target.replicas,
        serves=True,
        avoid_nodes=_others_with(pins, nodes, observed),
    )


def _with_standby(
    planned: TargetPlan, target: TargetSpec, earlier: list[TargetPlan], observed: Observed, names: frozenset[str]
) -> TargetPlan:
    """Put a standby to sleep while a target before it serves; on one machine a target with a plan does.

    Args:
        planned: without regard to the others.
        target: of the spec.
        earlier: plans of the targets before it.
        observed: with the Deployments that are there.
        names: of all targets of the spec.
    """
    if not target.standby or planned.deployment is None:
        return planned
    ready = {one.target for one in observed.deployments if one.ready_replicas > 0}
    before = [one for one in earlier if one.deployment is not None]
    serving = [one for one in before if observed.local or one.name in ready]
    # What a target before this one takes the place of serves until that one does.
    comes = any(one.deployment is not None and one.deployment.replicas != 0 for one in before)
    serving += before if comes and ready - names else []
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
        choice, left_out = _choose(target, engine.spec, group, observed)
        planned, lacking = _plan_engines(engine, target, choice, observed, key)
        if not planned:
            return _refused(target, (*left_out, *lacking))
        return TargetPlan(
            name=target.name,
            state=TargetState.BUILD_ONLY,
            standby=target.standby,
            engines=planned,
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
    if target.gpu is None or not traits(target.backend).builds_for_absent_gpus:
        return None
    asked = target.gpu
    hardware = Hardware(
        product=canonical_product(asked.product) if asked.product else None,
        mig_profile=canonical_mig_profile(asked.mig_profile),
        compute_capability=asked.compute_capability,
    )
    capability = capability_of(observed.matrix, hardware)
    return None if capability is None else hardware.model_copy(update={"compute_capability": capability})


def _preparation_keys(observed: Observed) -> tuple[str | None, ...]:
    return observed.preparation_key, observed.preparation.preparation_key if observed.preparation else None


def _conditions(key: str | None, targets: list[TargetPlan], refusals: tuple[Refusal, ...]) -> tuple[Condition, ...]:
    found = [_planned_condition(targets, refusals)]
    message = "the model's digest is known" if key else "the model is not fetched yet: keys are pending"
    reason = "DigestKnown" if key else "DigestPending"
    found.append(Condition(type=KEYS_RESOLVED, status=key is not None, reason=reason, message=message))
    newer = [(target.name, one.newer) for target in targets for one in target.engines if one.newer is not None]
    if newer:
        texts = dict.fromkeys(f"{name}: {toolchain_text(toolchain)}" for name, toolchain in newer)
        message = f"{'; '.join(texts)}; set spec.toolchain.update to auto, or raise the range's lower end"
        found.append(Condition(type=UPDATE_AVAILABLE, status=True, reason="NewerToolchain", message=message))
    waiting = [target.name for target in targets if any(one.waits_for_class for one in target.engines)]
    if waiting:
        message = f"there is no node of {', '.join(waiting)}; a pending pod scales up the node class"
        found.append(Condition(type=NODES_MISSING, status=True, reason="ScaledToZero", message=message))
    return tuple(found)


def _planned_condition(targets: list[TargetPlan], refusals: tuple[Refusal, ...]) -> Condition:
    if refusals:
        return Condition(type=PLANNED, status=False, reason=refusals[0].rule, message=refusals[0].sentence())
    refused = [target for target in targets if target.state is TargetState.REFUSED]
    if not refused:
        return Condition(type=PLANNED, status=True, reason="EveryTarget", message="every target has a plan")
    cause = next(iter(refused[0].refusals), None)
    detail = cause.sentence() if cause else "no node was seen"
    message = f"{len(refused)} of {len(targets)} targets have no plan; {refused[0].name}: {detail}"
    return Condition(type=PLANNED, status=False, reason=cause.rule if cause else "NoNodes", message=message)
