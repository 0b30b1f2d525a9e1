"""Which engines a target's Deployment runs now: no serving pod stops before the store has its successor.

    judge troubles    reject engines, exclude nodes                  (rollout_trials.py: what was tried and refused)
    choose engines    the wanted ones, else those that served last   (rollout_facts.py: all of one toolchain)
    apply a rule      the first of `RULES` that applies              (rollout_rules.py: Deployment and status together)

A rollout that a pod refuses goes back to the engines that served last, or to 0 replicas, after its first exit. One that
fails for a temporary reason goes back too and is tried again later; without engines to go back to it stays, and kubelet
restarts its containers. Free GPUs are found by trying, since pods of other teams hold some too. A template changes for
a reason only: products that come or go, labels with another spelling and nodes that join restart nothing until a pod
fits no node.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from enginesmith_operator.planning import rollout_rules as rules
from enginesmith_operator.planning.rollout_facts import RolloutFacts, find_facts
from enginesmith_operator.planning.rollout_rules import Step
from enginesmith_operator.planning.rollout_state import PATIENCE_SECONDS, RolloutDecision, RolloutState

__all__ = ["PATIENCE_SECONDS", "RULES", "decide_rollout"]

Rule = Callable[[RolloutFacts], Step | None]

RULES: Final[tuple[Rule, ...]] = (
    # No engine may run. First what a person has to solve, then what only takes time.
    rules.plan_refused,  # First: without a plan the rules below know too little.
    rules.every_engine_refused,  # Before the builds: these engines are built already.
    rules.first_build_failed,  # Before the builds that run: a failed one needs a person.
    rules.model_not_prepared,  # Before the preparation: names what holds it up.
    rules.model_in_preparation,  # Before the builds: without a key there is none.
    rules.first_build_waits_for_gpu,  # Before other obstacles: a GPU is the most frequent one.
    rules.first_build_held_up,  # Before the build that runs: names what holds it up.
    rules.first_build_runs,  # Applies to the rest: from here on, engines may run.
    # The number of pods is fixed, whatever the engines are.
    rules.standby,  # Before the replicas: a standby has no pods, whatever the spec asks for.
    rules.no_replicas,  # Before everything that counts pods.
    rules.make_room_for_build,  # Before the template: the pod stops with the engine that it has.
    # The template lists other engines than those that may run.
    rules.drain,  # Before every rule that says "Serving": a drain needs a person.
    rules.roll_back,  # Before the new template: it is one too, with another status.
    rules.new_template,  # Applies to the rest: from here on, the template is right.
    rules.scaled_to_zero,  # Before the ready pods: 0 of 0 replicas serve nothing.
    # All replicas are ready. First what went wrong with the next engine, then its progress.
    rules.next_engine_rejected,  # First: this engine was closest to serving.
    rules.plan_lost,  # Before the builds: without a plan there is no next one.
    rules.next_build_failed,  # Before the builds that wait: a failed one needs a person.
    rules.next_build_waits_for_gpu,  # Before other obstacles: a GPU is the most frequent one.
    rules.next_build_held_up,  # Before the model: an engine with a build has a key already.
    rules.next_model_not_prepared,  # Before the build that runs: names what holds it up.
    rules.next_build_runs,  # Before success: the replicas serve an earlier engine.
    rules.all_serve,  # Applies to the rest: from here on, a replica is missing or an old pod is left.
    rules.every_node_refused,  # Before the GPU: a pod that stops would free a place on a node that is not tried.
    # No GPU is free, and an old pod stops for a new one.
    rules.evict_idle,  # Whatever `whenFull` is: a pod that is not ready would hold its GPU for ever.
    rules.replace,  # Before the rules that only wait.
    # The last good engines lack a replica: the status stays "Serving".
    rules.too_few_for_lack_of_gpu,  # First: cordoned nodes and a missing GPU explain the scheduler's words.
    rules.too_few_for_an_obstacle,  # Before the count: names what holds the pod up.
    rules.settling,  # Before the count: all replicas are ready.
    rules.too_few,  # Applies to the rest.
    # The pods of a template start.
    rules.crashing,  # Before the GPU: a pod that crashes has one.
    rules.wait_for_gpu,  # Before other obstacles: explains the scheduler's words.
    rules.start_held_up,  # Before the count: names what holds the pods up.
    rules.starting,  # Always applies.
)
"""The rules in order; the first that applies decides. A new rule is a function in `rollout_rules` and a line here."""


def decide_rollout(state: RolloutState, now: datetime) -> RolloutDecision:
    """Decide the wanted state of the target's Deployment, and the target's status."""
    facts = find_facts(state, now)
    step = next(step for rule in RULES if (step := rule(facts)) is not None)
    return RolloutDecision(
        template_engines=step.engines,
        replicas=step.replicas,
        strategy=step.strategy,
        last_good=step.last_good,
        builds=facts.builds,
        rejected=facts.trials.rejected,
        excluded=facts.trials.excluded,
        must_avoid=facts.trials.avoid,
        phase=step.text.phase,
        reason=step.text.reason,
        message=step.text.message,
        look_again_seconds=facts.look_again_seconds,
    )
