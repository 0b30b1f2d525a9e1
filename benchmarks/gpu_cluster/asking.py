"""Clients of the engines: one that waits for the first response, and one with a constant load, with its figures."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc
import numpy as np
from benchmarks.gpu_cluster.workplace import Workplace
from client import Client
from tests.cluster.engines import Document, Tenant
from tests.cluster.inference import service_address
from tests.cluster.traffic import Traffic, steady_traffic

__all__ = ["first_answer", "latency", "more_answers", "seen", "steadily"]

_PAUSE_SECONDS: Final = 0.1


def first_answer(work: Workplace, model: str, shape: list[int], *, seconds: float) -> None:
    """Ask until the model's Service answers."""
    tenant = work.tenant(model)
    work.until(lambda: _answers(tenant, model, shape), f"{model} answers", seconds=seconds)


def _answers(tenant: Tenant, model: str, shape: list[int]) -> bool:
    if not tenant.kubectl("get", "service", model, "--ignore-not-found", "-o=name"):
        return False
    address = service_address(tenant, model)
    give_up = time.monotonic() + 5
    # A new connection each time: gRPC waits longer and longer before it tries a lost address again.
    while time.monotonic() < give_up:
        try:
            with Client(address) as client:
                client.infer(model, np.zeros(shape, np.float32))
        except grpc.RpcError:
            time.sleep(_PAUSE_SECONDS)
        else:
            return True
    return False


@contextmanager
def steadily(work: Workplace, scene: str) -> Iterator[Traffic]:
    """Ask the classifier steadily while the block runs, from the first answer on."""
    tenant = work.tenant("cls")
    log = work.settings.out / f"traffic-{scene}.jsonl"
    with steady_traffic(service_address(tenant, "cls"), "cls", log) as traffic:
        more_answers(work, traffic, 1)
        yield traffic


def more_answers(work: Workplace, traffic: Traffic, requests: int) -> None:
    """Wait for so many more answers, good or not."""
    known = len(traffic.answers())
    work.until(lambda: len(traffic.answers()) >= known + requests, "the client is answered", seconds=60)


def seen(traffic: Traffic) -> Document:
    """Return what a steady client saw: requests, errors, engines, and the longest time without an answer."""
    answers = traffic.answers()
    errors = [one for one in answers if not one.is_good]
    slowest = max((one.answered - one.sent for one in answers if one.is_good), default=0.0)
    return {
        "requests": len(answers),
        "errors": len(errors),
        "codes": dict(Counter(one.code for one in errors)),
        "firstError": errors[0].details[:300] if errors else "",
        "engines": len(traffic.engines()),
        "gapSeconds": round(traffic.gap_seconds(), 3),
        "slowestSeconds": round(slowest, 3),
    }


def latency(tenant: Tenant, model: str, shape: list[int], *, times: int) -> Document:
    """Return the time of one request after the other through the Service, in milliseconds."""
    tensor = np.random.default_rng(3).uniform(-1, 1, shape).astype(np.float32)
    taken = []
    with Client(service_address(tenant, model)) as client:
        for _ in range(times):
            begun = time.perf_counter()
            client.infer(model, tensor)
            taken.append(1e3 * (time.perf_counter() - begun))
    ordered = sorted(taken[times // 5 :])
    return {"p50Milliseconds": round(ordered[len(ordered) // 2], 2), "requests": len(ordered)}
