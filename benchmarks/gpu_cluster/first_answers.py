"""From `kubectl apply` to the first answer, and on to the full engine while a client asks."""

import time
from typing import Final

from benchmarks.gpu_cluster.asking import first_answer, more_answers, seen, steadily
from benchmarks.gpu_cluster.documents import (
    SHAPES,
    apply_engine,
    builds,
    facts,
    serves_full_engine,
    serves_quick_engine,
)
from benchmarks.gpu_cluster.workplace import Workplace

__all__ = ["run"]

_PART: Final = "first_answers"


def run(work: Workplace) -> None:
    """Measure the classifier in FP16."""
    tenant = work.tenant("cls")
    begun = time.monotonic()
    apply_engine(work, "cls", is_quick=True, precision="fp16")
    first_answer(work, "cls", SHAPES["cls"][0], seconds=120)
    seconds = round(time.monotonic() - begun, 2)
    is_quick = serves_quick_engine(tenant, "cls")
    work.note(_PART, "first answer", seconds=seconds, byQuickEngine=is_quick, status=facts(tenant, "cls"))
    with steadily(work, _PART) as traffic:
        work.until(lambda: serves_full_engine(tenant, "cls"), "the full engine serves", seconds=180)
        seconds = round(time.monotonic() - begun, 2)
        more_answers(work, traffic, 120)
    work.note(_PART, "full engine", seconds=seconds, client=seen(traffic), status=facts(tenant, "cls"))
    work.note(_PART, "builds", builds=builds(tenant))
