"""`spec.build.quickStart`: the plan of a quick engine, which may serve until the full one is stored.

`rollout_quick.find_stand_ins` decides when it serves, and `controller.inference_engine.early_builds` when its build
begins while the model is still being prepared.
"""

from enginesmith_contract.backend_traits import traits
from enginesmith_operator.api.build import QUICK_LEVEL
from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.api.targets import TargetSpec
from enginesmith_operator.planning.desired import build_request, engine_candidate
from enginesmith_operator.planning.plan_records import EnginePlan
from enginesmith_operator.planning.snapshot import Observed

__all__ = ["may_begin_early", "warn_of_quick_start", "with_quick_engine"]


def may_begin_early(spec: InferenceEngineSpec) -> bool:
    """Return whether the model's digest is all that a quick engine's key and pod still depend on.

    Calibration data has a digest of its own, and with a fallback the preparation chooses the precision. A build that
    may refit starts no builder before it has the model.
    """
    precision = spec.precision
    is_fixed = precision.calibration is None and precision.following is None
    return spec.build.quick_start and is_fixed and not spec.build.refittable


def warn_of_quick_start(spec: InferenceEngineSpec, observed: Observed) -> tuple[str, ...]:
    """Return a warning where quick start does nothing: one machine builds and serves in one process."""
    if not spec.build.quick_start or not observed.local:
        return ()
    return ("spec.build.quickStart: it has an effect only in a cluster; the full engine is built here.",)


def with_quick_engine(
    planned: EnginePlan, spec: InferenceEngineSpec, target: TargetSpec, observed: Observed
) -> EnginePlan:
    """Return an engine's plan with its quick engine, where the spec asks for one and the backend has levels."""
    if not spec.build.quick_start or observed.local or not traits(target.backend).optimization_levels:
        return planned
    build = spec.build.model_copy(update={"quick_start": False, "optimization_level": QUICK_LEVEL})
    quick = spec.model_copy(update={"build": build})
    candidate = engine_candidate(quick, target, planned.toolchain, planned.hardware)
    request = None
    if planned.build is not None:
        inputs = candidate.key_inputs(planned.build.key_inputs.preparation_key)
        request = build_request(quick, inputs, planned.toolchain, planned.build.hardware, observed)
    key = request.engine_key if request is not None else None
    changes = {"candidate": candidate, "engine_key": key, "stored": key in observed.engine_keys, "build": request}
    return planned.model_copy(update={"quick": planned.model_copy(update=changes)})
