"""The condition PolicyViolated, and its event. Pure.

A changed policy stops no serving pod: the condition says what it forbids, and since when.
"""

from collections.abc import Iterator

from enginesmith_operator.api.conditions import POLICY_VIOLATED, ConditionStatus
from enginesmith_operator.api.engine_status import EngineStatus
from enginesmith_operator.controller.inference_engine.snapshot import EngineSnapshot
from enginesmith_operator.controller.shared.conditions import Observation, find_condition
from enginesmith_operator.controller.shared.decision import EventNote
from enginesmith_operator.planning.policies import (
    Violation,
    find_violations,
    forbids_device,
    forbids_toolchain,
)

__all__ = ["observe_policies", "policy_events"]


def observe_policies(snapshot: EngineSnapshot) -> tuple[Observation, ...]:
    """Return PolicyViolated, if a policy forbids something in the spec or in what serves."""
    violations = tuple(dict.fromkeys(_violations(snapshot)))
    if not violations:
        return ()
    serves = any(one.replicas > 0 for one in snapshot.deployments.values())
    remedy = "change the spec, or ask the administrator to change the policy"
    rest = f"serving pods continue; {remedy}" if serves else remedy
    message = "; ".join([*(one.sentence() for one in violations), rest])
    return (Observation.of(POLICY_VIOLATED, True, violations[0].rule, message),)


def policy_events(before: EngineStatus, after: EngineStatus) -> tuple[EventNote, ...]:
    """Return an event where PolicyViolated begins."""
    was, now = (find_condition(one.conditions, POLICY_VIOLATED) for one in (before, after))
    if now is None or now.status is not ConditionStatus.TRUE or was is not None:
        return ()
    return (EventNote(is_warning=True, reason=now.reason, message=now.message, since=now.last_transition_time),)


def _violations(snapshot: EngineSnapshot) -> Iterator[Violation]:
    policies = snapshot.observed.policies
    of_spec = find_violations(snapshot.engine.spec, policies)
    yield from of_spec
    said = {(one.policy, one.rule, one.target) for one in of_spec}
    for target, deployment in sorted(snapshot.deployments.items()):
        if deployment.replicas == 0:
            continue
        for one in deployment.notes.served or deployment.notes.engines:
            engine = one.engine
            for found in (
                forbids_device(engine.product, engine.mig_profile, policies, target),
                forbids_toolchain(one.toolchain, policies, target),
            ):
                if found is not None and (found.policy, found.rule, found.target) not in said:
                    yield found._replace(text=f"target {target} serves: {found.text}")
