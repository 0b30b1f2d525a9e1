"""From a plan to the preparation's request: known before the model's digest is."""

from enginesmith_contract.preparation_job import PreparationJobRequest
from enginesmith_operator.planning.plan_records import Plan

__all__ = ["preparation_job_request"]


def preparation_job_request(plan: Plan, store: str) -> PreparationJobRequest:
    """Return the request that the preparation's pod receives.

    Args:
        plan: of the engine, with or without keys.
        store: URI of the store that receives the preparation.
    """
    # Two targets may want one engine; a record with a mapping has no hash, its canonical form does.
    engines = (one for target in plan.targets for planned in target.engines for one in planned.variants)
    unique = {one.candidate.to_json(): one.candidate for one in engines}
    return PreparationJobRequest(preparation=plan.preparation, store=store, candidates=tuple(unique.values()))
