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
from enginesmith_operator.planning.rollout_facts import PATIENCE_SECONDS, RolloutFacts, find_facts
from enginesmith_operator.planning.rollout_rules import Step
from enginesmith_operator.planning.rollout_state import RolloutDecision, RolloutState

__all__ = ["PATIENCE_SECONDS", "RULES", "decide_rollout"]

Rule = Callable[[RolloutFacts], Step | None]

RULES: Final[tuple[Rule, ...]] = (
    # No engine may run. First the causes that a person can remove, then what only takes time.
    rules.plan_refused,  # Without a plan nothing below is known.
    rules.every_engine_refused,  # Before the builds: an engine that pods refused is stored already.
    rules.first_build_failed,  # One failed build is worth a look, even while others run.
    rules.model_not_prepared,  # Names what keeps the preparation from running.
    rules.model_in_preparation,  # Without a key there is no build to speak of.
    rules.first_build_waits_for_gpu,  # Before the obstacles: a free GPU is the usual one.
    rules.first_build_held_up,
    rules.first_build_runs,  # Applies to the rest: from here on, engines may run.
    # The number of pods, before anything that starts one.
    rules.standby,  # Before the replicas: a standby sleeps whatever its number is.
    rules.no_replicas,
    rules.make_room_for_build,  # Before the template: the build comes first, the new engine after it.
    # The template.
    rules.drain,  # Before everything that says "Serving": a drain needs a person to act.
    rules.roll_back,  # Before the new template: it is one as well, with another status.
    rules.new_template,  # From here on, the Deployment's template is the right one.
    rules.scaled_to_zero,  # Before the ready pods: 0 of 0 are no success.
    # All replicas are ready. First what went wrong with the next engine, then how far it is.
    rules.next_engine_rejected,
    rules.plan_lost,
    rules.next_build_failed,
    rules.next_build_waits_for_gpu,
    rules.next_build_held_up,  # Before the model: a build that exists has its own obstacle.
    rules.next_model_not_prepared,
    rules.next_build_runs,
    rules.all_serve,  # Applies to the rest: from here on, a replica is missing.
    # No GPU is free, and a pod may be stopped for a new one.
    rules.evict_idle,  # Whatever `whenFull` says: an idle pod of an old template would hold its GPU for ever.
    rules.replace,
    # The last good engines lack a replica: no rollout.
    rules.too_few_for_lack_of_gpu,
    rules.too_few_for_an_obstacle,
    rules.settling,
    rules.too_few,  # Applies to the rest: from here on, the template's engines have not served yet.
    # The first pods of a template.
    rules.crashing,  # Before the GPU: a pod that crashes has one.
    rules.wait_for_gpu,
    rules.start_held_up,
    rules.starting,  # Always applies.
)
"""The rules in order; the first that applies decides. A new rule is a function in `rollout_rules` and a line here."""


def decide_rollout(state: RolloutState, now: datetime) -> RolloutDecision:
    """Decide what the target's Deployment is to be, and what its status says."""
    facts = find_facts(state, now)
    step = next(step for rule in RULES if (step := rule(facts)) is not None)
    return RolloutDecision(
        template_engines=step.engines,
        replicas=step.replicas,
        strategy=step.strategy,
        last_good=step.last_good,
        rejected=facts.trials.rejected,
        excluded=facts.trials.excluded,
        must_avoid=facts.trials.avoid,
        phase=step.text.phase,
        reason=step.text.reason,
        message=step.text.message,
        look_again_seconds=facts.look_again_seconds,
    )
