"""`precision.fallback` in local mode: refused engines are recorded, so that none of them is built twice."""

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from enginesmith_cli.stored_engines import find_engine
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.planning.fallback import compare_latencies, in_half_precision, pair_engines
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import EnginePlan, Plan
from enginesmith_operator.planning.snapshot import Observed, RefusedPrecision

__all__ = ["GateMemo", "find_slower"]


class GateMemo:
    """The entries in one folder; a lost or damaged entry only costs a build.

    An entry is for one engine key and one verification.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recall(self, plan: Plan) -> RefusedPrecision | None:
        """Return why an engine of the plan was refused; None: none was."""
        for engine in (one for target in plan.targets for one in target.engines):
            try:
                return RefusedPrecision.from_json(self._path(engine).read_bytes())
            except (OSError, ValidationError):
                continue
        return None

    def remember(self, engine: EnginePlan, refused: RefusedPrecision) -> None:
        """Record why an engine was refused."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._path(engine)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_bytes(refused.to_json())
            draft.replace(path)
        except OSError:
            return

    def _path(self, engine: EnginePlan) -> Path:
        judged = b"" if engine.build is None else engine.build.verification.to_json()
        return self._folder / f"{sha256((engine.engine_key or '').encode() + judged).hexdigest()}.json"


def find_slower(
    engine: InferenceEngine, planned: Plan, key: str, latencies: Mapping[str, float], observed: Observed
) -> RefusedPrecision | None:
    """Return that an engine for a GPU is slower than the one in FP16, where the store has that one.

    Args:
        engine: document in the precision of the engine.
        planned: its plan.
        key: of the engine.
        latencies: of the engine: of one inference in seconds, by profile.
        observed: what the plan was made of.
    """
    half = in_half_precision(engine)
    if half is None:
        return None
    # FP16 needs no calibration, and what is known of the prepared model is of the other precision.
    known = observed.model_copy(update={"preparation": None, "model_facts": None, "calibration_digest": None})
    for one, other in pair_engines(planned, plan(half, known, planned.made_at)):
        if one.engine_key == key and other.stored and other.engine_key is not None:
            stored = find_engine(observed.store, other.engine_key).timings.latency_seconds
            return compare_latencies(engine, one.hardware.product, latencies, stored)
    return None
