"""Changes of the spec under a steady client, with room for a second server: replicas, precision, and back."""

import time
from functools import partial
from typing import Final

from benchmarks.gpu_cluster.answers import compare
from benchmarks.gpu_cluster.asking import more_answers, seen, steadily
from benchmarks.gpu_cluster.documents import apply_engine, builds, facts, profile_of_cls, serves_full_engine
from benchmarks.gpu_cluster.workplace import Workplace
from tests.cluster.engines import Document, Tenant

__all__ = ["run"]

_PART: Final = "rollouts"
_TWO: Final = 2


def run(work: Workplace) -> None:
    """Play three changes; each ends when its engine alone serves."""
    tenant = work.tenant("cls")
    profiles = profile_of_cls(most=16)
    # The nodes of a rehearsal have two GPUs: no room for two servers and a change.
    replicas = _TWO if work.room > _TWO + 1 else 1
    changes: dict[str, Document] = {
        "replicas": {"replicas": _TWO, "precision": "fp16"},
        "precision fp32": {"replicas": replicas, "precision": "fp32"},
        "precision fp16, stored": {"replicas": replicas, "precision": "fp16"},
    }
    for name, change in changes.items():
        with steadily(work, f"{_PART}-{name.partition(',')[0].replace(' ', '-')}") as traffic:
            begun = time.monotonic()
            apply_engine(work, "cls", profiles=profiles, **change)
            work.until(partial(_is_done, tenant, change["replicas"]), f"{name} is done", seconds=150)
            seconds = round(time.monotonic() - begun, 2)
            more_answers(work, traffic, 120)
        work.note(
            _PART, name, seconds=seconds, client=seen(traffic), status=facts(tenant, "cls"), **compare(work, "cls")
        )
    work.note(_PART, "builds", builds=builds(tenant))


def _is_done(tenant: Tenant, replicas: int) -> bool:
    """Return whether so many pods serve what the spec asks for, and none serves anything else."""
    if not serves_full_engine(tenant, "cls"):
        return False
    counts = [
        (one["spec"]["replicas"], one["status"].get("readyReplicas", 0))
        for one in tenant.get("deployments", "--selector=enginesmith.io/engine=cls")["items"]
        if one["spec"]["replicas"] or one["status"].get("replicas")
    ]
    return counts == [(replicas, replicas)]
