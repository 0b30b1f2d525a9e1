"""The error of a document that cannot be built or served here."""

from enginesmith_contract.errors import PlanRefusedError
from enginesmith_operator.planning.plan_records import Plan

__all__ = ["refusal_error"]


def refusal_error(refused: Plan) -> PlanRefusedError:
    """Return the error of a document none of whose targets has a plan."""
    lines = [refusal.sentence() for refusal in refused.refusals]
    for target in () if refused.refusals else refused.targets:
        lines += [f"target {target.name}: {count.sentence()}" for count in target.refusals]
        lines += [f"target {target.name}: {hint}" for hint in target.hints]
    return PlanRefusedError(
        "no target can be built or served here",
        where=refused.name,
        why="\n  ".join(["", *lines]).rstrip(),
        remedy=f"add this below spec:\n{refused.suggestion}" if refused.suggestion else "",
    )
