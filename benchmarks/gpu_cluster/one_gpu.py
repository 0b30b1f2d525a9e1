"""One GPU that is handed out once: a change waits for it, and then takes it from the engine that serves."""

import time
from typing import Final

from benchmarks.gpu_cluster.asking import more_answers, seen, steadily
from benchmarks.gpu_cluster.documents import (
    TARGET,
    apply_engine,
    builds,
    facts,
    profile_of_cls,
    serves_quick_engine,
    waits_for_gpu,
)
from benchmarks.gpu_cluster.workplace import Workplace
from tests.cluster.engines import Document, Tenant
from tests.cluster.traffic import Traffic

__all__ = ["run"]

_PART: Final = "one_gpu"
_MOST: Final = 24


def run(work: Workplace) -> None:
    """Change the profile with `whenFull: wait`, then with `replace`, and note the gap."""
    tenant = work.tenant("cls")
    work.hand_out(1)
    change: Document = {"precision": "fp16", "profiles": profile_of_cls(most=_MOST)}
    with steadily(work, f"{_PART}-wait") as traffic:
        apply_engine(work, "cls", is_quick=True, **change)
        work.until(lambda: waits_for_gpu(tenant.target("cls", TARGET)), "it says that it waits", seconds=60)
        more_answers(work, traffic, 120)
    work.note(_PART, "wait", client=seen(traffic), status=facts(tenant, "cls"))
    with steadily(work, f"{_PART}-replace") as traffic:
        begun = time.monotonic()
        apply_engine(work, "cls", is_quick=True, rollout={"whenFull": "replace"}, **change)
        work.until(lambda: len(traffic.engines()) > 1, "another engine answers", seconds=150)
        seconds = round(time.monotonic() - begun, 2)
        more_answers(work, traffic, 60)
    work.note(_PART, "replace", seconds=seconds, client=seen(traffic), gapSeconds=_gap(traffic), **_state(tenant))
    work.hand_out(work.room)


def _gap(traffic: Traffic) -> float:
    """Return the longest time without an answer at a switch, in seconds."""
    return round(max(traffic.switch_seconds(), default=0.0), 2)


def _state(tenant: Tenant) -> Document:
    return {
        "byQuickEngine": serves_quick_engine(tenant, "cls"),
        "status": facts(tenant, "cls"),
        "builds": builds(tenant),
    }
