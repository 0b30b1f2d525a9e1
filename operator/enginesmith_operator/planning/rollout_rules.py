"""The rules of a rollout: each gives a step, with its status, or None where it does not apply. Pure.

`rollout.RULES` is their order. A rule may rely on the rules before it: they did not apply.
"""

from typing import Final, NamedTuple

from enginesmith_contract.keys import NAME_KEY_LENGTH
from enginesmith_operator.api.engine_status import TargetPhase
from enginesmith_operator.planning.rollout_facts import RolloutFacts
from enginesmith_operator.planning.rollout_state import EngineState, ServableEngine, Strategy
from enginesmith_operator.planning.rollout_words import (
    MADE_ROOM,
    NO_FREE_GPU,
    NODE_CORDONED,
    QUICK_ENGINE,
    REPLACE_OPTION,
    REPLACING,
    StatusText,
    again_at,
    and_then,
    device_name,
    first_names,
    list_engines,
    with_retry,
)

__all__ = ["Step"]


_QUICK_REMEDY: Final = "add a GPU; without build.quickStart a serving replica stops for this build"


class Step(NamedTuple):
    """What a rule decides: the Deployment, and what the target's status says about it.

    Attributes:
        engines: engines that the template lists.
        replicas: number of pods; None: an autoscaler's number stays.
        last_good: engines that a later rollout goes back to.
    """

    text: StatusText
    engines: tuple[ServableEngine, ...]
    replicas: int | None
    last_good: tuple[ServableEngine, ...]
    strategy: Strategy = Strategy.SURGE


# No engine may run.


def plan_refused(facts: RolloutFacts) -> Step | None:
    """The target has no plan."""
    if facts.engines or not facts.state.refusal:
        return None
    return _stop(facts, StatusText(TargetPhase.REFUSED, "NoPlan", facts.state.refusal))


def every_engine_refused(facts: RolloutFacts) -> Step | None:
    """Pods refused an engine, or failed with it, and no other one is left."""
    if facts.engines or not facts.trials.not_tried or facts.failed_quick:
        return None
    first = facts.trials.not_tried[0]
    return _stop(facts, StatusText(TargetPhase.FAILED, first.reason, f"on node {first.node}: {with_retry(first)}"))


def first_build_failed(facts: RolloutFacts) -> Step | None:
    """A build failed, and no engine is stored."""
    if facts.engines or not facts.failed_builds:
        return None
    return _stop(facts, StatusText(TargetPhase.FAILED, "BuildFailed", facts.failed_builds[0].message))


def model_not_prepared(facts: RolloutFacts) -> Step | None:
    """Something keeps the model from being prepared."""
    obstacle = facts.state.model_obstacle
    if facts.engines or obstacle is None or not (facts.lacks_keys or not facts.state.wanted):
        return None
    return _stop(facts, StatusText(TargetPhase.PREPARING, obstacle.reason, obstacle.message))


def model_in_preparation(facts: RolloutFacts) -> Step | None:
    """The model's digest is not known yet, so no key is."""
    if facts.engines or not (facts.lacks_keys or not facts.state.wanted):
        return None
    return _stop(facts, StatusText(TargetPhase.PREPARING, "Preparing", "the model is being prepared"))


def first_build_waits_for_gpu(facts: RolloutFacts) -> Step | None:
    """A build finds no free GPU."""
    if facts.engines or not facts.full_builds:
        return None
    said = next((wanted.message for wanted in facts.next_builds if wanted.waits_since and wanted.message), "")
    message = said or f"{facts.no_gpu_for_build} for the build"
    return _stop(facts, StatusText(TargetPhase.WAITING_FOR_GPU, NO_FREE_GPU, message))


def first_build_held_up(facts: RolloutFacts) -> Step | None:
    """A build cannot run for another reason than a GPU."""
    held = next((wanted for wanted in facts.next_builds if wanted.is_held_up), None)
    if facts.engines or held is None:
        return None
    return _stop(facts, StatusText(TargetPhase.BUILDING, held.obstacle, held.message))


def first_build_runs(facts: RolloutFacts) -> Step | None:
    """The engines are being built."""
    if facts.engines:
        return None
    wanted = facts.state.wanted
    stored = sum(engine.state is EngineState.STORED for engine in wanted)
    message = f"{stored} of {len(wanted)} engines are stored"
    if facts.stand_ins:
        message += f"; {QUICK_ENGINE} is built first"
    elif facts.failed_quick:
        message += f"; without {QUICK_ENGINE}: {facts.failed_quick}"
    return _stop(facts, StatusText(TargetPhase.BUILDING, "Building", message))


# The number of pods.


def standby(facts: RolloutFacts) -> Step | None:
    """An earlier target serves, and this one is its standby."""
    if facts.state.serves:
        return None
    return _run(facts, StatusText(TargetPhase.STANDBY, "TargetBeforeServes", "an earlier target serves"), replicas=0)


def no_replicas(facts: RolloutFacts) -> Step | None:
    """The spec asks for 0 replicas."""
    if facts.state.replicas != 0:
        return None
    return _run(facts, StatusText(TargetPhase.IDLE, "NoReplicas", "the spec asks for 0 replicas"))


def make_room_for_build(facts: RolloutFacts) -> Step | None:
    """A serving pod stops so that the next engine's build gets its GPU."""
    if not facts.makes_room:
        return None
    message = "one serving replica stopped because the build needs its GPU (rollout.whenFull: replace)"
    return _run(facts, StatusText(TargetPhase.BUILDING, MADE_ROOM, message), replicas=facts.total - 1)


# The template.


def drain(facts: RolloutFacts) -> Step | None:
    """Pods serve on a cordoned node, and no other node takes their successors."""
    if not facts.state.drain or not facts.keeps_serving:
        return None
    text = StatusText(TargetPhase.SERVING, NODE_CORDONED, facts.state.drain)
    return _serve(facts, text) if facts.all_ready else _run(facts, text)


def roll_back(facts: RolloutFacts) -> Step | None:
    """A newer engine was rejected (`RolloutFacts.goes_back`): the template lists the last good engines again."""
    return _run(facts, _rolled_back(facts)) if facts.goes_back else None


def new_template(facts: RolloutFacts) -> Step | None:
    """The Deployment is created, or gets other engines."""
    if facts.is_current:
        return None
    return _run(facts, StatusText(TargetPhase.ROLLING_OUT, "NewEngine", list_engines(facts.engines)))


def scaled_to_zero(facts: RolloutFacts) -> Step | None:
    """An autoscaler has set 0 replicas."""
    if facts.total > 0:
        return None
    return _run(facts, StatusText(TargetPhase.IDLE, "ScaledToZero", "the autoscaler asks for 0 replicas"))


# All replicas are ready.


def next_engine_rejected(facts: RolloutFacts) -> Step | None:
    """The next engine was rejected before."""
    if not facts.all_ready or not facts.trials.not_tried_instead_of(facts.engines):
        return None
    return _serve(facts, _rolled_back(facts))


def plan_lost(facts: RolloutFacts) -> Step | None:
    """The target has no plan any more."""
    if not facts.all_ready or not facts.state.refusal:
        return None
    return _serve(facts, StatusText(TargetPhase.SERVING, "NoPlan", f"{facts.who_serves}; {facts.state.refusal}"))


def next_build_failed(facts: RolloutFacts) -> Step | None:
    """The build of the next engine failed."""
    if not facts.all_ready or not facts.next_failed:
        return None
    message = f"{facts.who_serves}; {'the full build failed: ' if facts.is_quick else ''}{facts.next_failed[0].message}"
    return _serve(facts, StatusText(TargetPhase.SERVING, "BuildFailed", message))


def next_build_waits_for_gpu(facts: RolloutFacts) -> Step | None:
    """The build of the next engine finds no free GPU, or only one on a cordoned node."""
    if not facts.all_ready or not facts.full_builds:
        return None
    cordoned = next((wanted for wanted in facts.next_engines if wanted.obstacle == NODE_CORDONED), None)
    if cordoned is not None:
        reason, why = NODE_CORDONED, cordoned.message
    else:
        remedy = _QUICK_REMEDY if facts.is_quick and facts.may_replace else REPLACE_OPTION
        reason, why = NO_FREE_GPU, f"{facts.no_gpu_for_build} for the next engine's build ({remedy})"
    return _serve(facts, StatusText(TargetPhase.WAITING_FOR_GPU, reason, f"{facts.who_serves}; {why}"))


def next_build_held_up(facts: RolloutFacts) -> Step | None:
    """The build of the next engine cannot run for another reason than a GPU."""
    held = next((wanted for wanted in facts.next_engines if wanted.is_held_up), None)
    if not facts.all_ready or not facts.next_is_missing or held is None:
        return None
    return _serve(facts, StatusText(TargetPhase.SERVING, held.obstacle, f"{facts.who_serves}; {held.message}"))


def next_model_not_prepared(facts: RolloutFacts) -> Step | None:
    """Something keeps the next revision of the model from being prepared."""
    obstacle = facts.state.model_obstacle
    if not facts.all_ready or not facts.lacks_keys or obstacle is None:
        return None
    return _serve(facts, StatusText(TargetPhase.SERVING, obstacle.reason, f"{facts.who_serves}; {obstacle.message}"))


def next_build_runs(facts: RolloutFacts) -> Step | None:
    """The next engine is not stored yet."""
    if not facts.all_ready or not facts.next_is_missing:
        return None
    if facts.is_quick:
        message = f"{facts.who_serves}; the full engine is being built"
        return _serve(facts, StatusText(TargetPhase.SERVING, "QuickEngine", message))
    message = f"{list_engines(facts.engines)}; the next engine is not stored yet"
    return _serve(facts, StatusText(TargetPhase.SERVING, "BuildingNext", message))


def all_serve(facts: RolloutFacts) -> Step | None:
    """All replicas serve what is wanted; an engine for another product waits until a pod fits no node."""
    if not facts.all_ready:
        return None
    message = list_engines(facts.engines)
    if facts.next_engines:
        more = ", ".join(device_name(wanted.servable) for wanted in facts.next_engines)
        message += f"; the engine for {more} is stored, and used once a pod fits no node"
    return _serve(facts, StatusText(TargetPhase.SERVING, "Serving", message))


# No GPU is free, and a pod may be stopped for a new one.


def every_node_refused(facts: RolloutFacts) -> Step | None:
    """Each node that fits refused the engines that are to serve: to stop a pod would give no other one a place."""
    first = facts.refused_everywhere
    if first is None:
        return None
    message = and_then(f"{_count_ready(facts)}; on node {first.name}: {first.message}", again_at(first))
    phase = TargetPhase.SERVING if facts.pods.ready else TargetPhase.ROLLING_OUT
    return _run(facts, StatusText(phase, first.reason, message))


def evict_idle(facts: RolloutFacts) -> Step | None:
    """A pod of an earlier template serves no requests and holds a GPU: to wait for it would never end."""
    if not facts.is_full or not facts.pods.idle_old:
        return None
    message = f"{facts.no_gpu_for_pod}: an old replica that is not ready stops for a new one"
    return _run(facts, StatusText(TargetPhase.ROLLING_OUT, REPLACING, message), strategy=Strategy.REPLACE)


def replace(facts: RolloutFacts) -> Step | None:
    """Serving pods of an earlier template stop one at a time, or one of them is still ending."""
    if not facts.replaces:
        return None
    message = f"{facts.no_gpu_for_pod}: one serving replica at a time stops for a new one (rollout.whenFull: replace)"
    strategy = Strategy.REPLACE if facts.has_old_ready else Strategy.SURGE
    return _run(facts, StatusText(TargetPhase.ROLLING_OUT, REPLACING, message), strategy=strategy)


# The last good engines lack a replica.


def too_few_for_lack_of_gpu(facts: RolloutFacts) -> Step | None:
    """The missing replica fits no node."""
    if not facts.lacks_replicas or not facts.is_full or not facts.pods.takes_gpus:
        return None
    reason, why = _fits_no_node(facts, "another replica")
    return _run(facts, StatusText(TargetPhase.SERVING, reason, f"{_count_ready(facts)}; {why}"))


def too_few_for_an_obstacle(facts: RolloutFacts) -> Step | None:
    """Something keeps the missing replica from starting."""
    if not facts.lacks_replicas or not facts.pods.obstacle:
        return None
    return _run(facts, StatusText(TargetPhase.SERVING, facts.pods.obstacle, facts.pods.obstacle_message))


def settling(facts: RolloutFacts) -> Step | None:
    """Enough pods are ready, and others are still terminating."""
    if not facts.lacks_replicas or facts.pods.ready < facts.total:
        return None
    message = f"{_count_ready(facts)}; pods of an earlier template are still terminating"
    return _run(facts, StatusText(TargetPhase.SERVING, "Settling", message))


def too_few(facts: RolloutFacts) -> Step | None:
    """A replica is missing, and its pod is about to start."""
    if not facts.lacks_replicas:
        return None
    return _run(facts, StatusText(TargetPhase.SERVING, "FewerReplicas", _count_ready(facts)))


# The pods of a template start.


def crashing(facts: RolloutFacts) -> Step | None:
    """Every pod fails, and there are no engines to go back to."""
    crash = facts.pods.crash
    if crash is None or facts.pods.ready:
        return None
    message = and_then(f"on node {crash.node}: {crash.message}", "kubelet restarts it within 5 minutes")
    return _run(facts, StatusText(TargetPhase.FAILED, crash.reason, message))


def wait_for_gpu(facts: RolloutFacts) -> Step | None:
    """A new pod fits no node."""
    if not facts.is_full or not facts.pods.takes_gpus:
        return None
    reason, message = _fits_no_node(facts, "a new replica")
    if facts.pods.ready:
        message += f"; the old replicas still serve ({REPLACE_OPTION})"
    return _run(facts, StatusText(TargetPhase.WAITING_FOR_GPU, reason, message), strategy=facts.strategy)


def start_held_up(facts: RolloutFacts) -> Step | None:
    """Something keeps a new pod from starting."""
    if not facts.pods.obstacle:
        return None
    text = StatusText(TargetPhase.ROLLING_OUT, facts.pods.obstacle, facts.pods.obstacle_message)
    return _run(facts, text, strategy=facts.strategy)


def starting(facts: RolloutFacts) -> Step:
    """New pods start."""
    ready = f"{facts.pods.updated_ready} of {facts.total} replicas are ready with {list_engines(facts.engines)}"
    if facts.pods.unschedulable_since is not None:
        ready += "; a pod waits for a GPU that another one is just leaving"
    return _run(facts, StatusText(TargetPhase.ROLLING_OUT, "Starting", ready), strategy=facts.strategy)


def _stop(facts: RolloutFacts, text: StatusText) -> Step:
    """Keep the template that is there, without pods where its engines were refused.

    Pods whose engines are merely not known stay as they are.
    """
    running, state = facts.state.running, facts.state
    if running is None or facts.trials.not_tried or not state.serves:
        replicas: int | None = 0
    else:
        replicas = None if state.replicas is None else running.replicas
    return Step(text, facts.pods.engines, replicas, facts.last_good)


def _run(
    facts: RolloutFacts, text: StatusText, *, replicas: int | None = None, strategy: Strategy = Strategy.SURGE
) -> Step:
    """Run the chosen engines, with the state's replicas unless others are given."""
    number = facts.state.replicas if replicas is None else replicas
    return Step(text, facts.engines, number, facts.last_good, strategy)


def _serve(facts: RolloutFacts, text: StatusText) -> Step:
    """Keep engines whose replicas are all ready: they are the last good ones from now on."""
    return Step(text, facts.engines, facts.state.replicas, last_good=facts.engines)


def _rolled_back(facts: RolloutFacts) -> StatusText:
    """Say which engine was rejected, and that the previous one serves."""
    first = facts.trials.not_tried_instead_of(facts.engines)[0]
    key = first.key[:NAME_KEY_LENGTH]
    message = f"{facts.who_serves}; {key} was rejected on node {first.node}: {with_retry(first)}"
    return StatusText(TargetPhase.SERVING, "RolledBack", message)


def _count_ready(facts: RolloutFacts) -> str:
    return f"{facts.pods.ready} of {facts.total} replicas are ready"


def _fits_no_node(facts: RolloutFacts, what: str) -> tuple[str, str]:
    """Return reason and sentence of a pod that fits no node; `what` names the pod in the sentence."""
    cordoned = facts.pods.cordoned
    if not cordoned:
        return NO_FREE_GPU, f"{facts.no_gpu_for_pod} for {what}"
    nodes = "node {} is cordoned" if len(cordoned) == 1 else "nodes {} are cordoned"
    return NODE_CORDONED, f"{nodes.format(first_names(cordoned))} (kubectl uncordon), and no other node takes {what}"
