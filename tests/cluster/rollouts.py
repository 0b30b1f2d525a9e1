"""Rollouts on a node with L4s under steady requests of one client; for the tests and the benchmark."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant
from tests.cluster.inference import service_address
from tests.cluster.installation import ROOT
from tests.cluster.traffic import Traffic, steady_traffic

__all__ = [
    "ENGINE_NAME",
    "NEXT",
    "TARGET",
    "Rollout",
    "answer_on",
    "apply",
    "change_three_times",
    "make_room",
    "roll_out",
    "serve",
    "target",
    "wait_for_a_gpu",
]

ENGINE_NAME = "cls"
NEXT: Document = {"build": {"epoch": 1}}
TARGET = "l4"
_L4 = {"name": TARGET, "backend": "onnxruntime", "gpu": {"product": "NVIDIA-L4"}}
_FEWER_LINES = [
    {"name": "line-start", "inputs": {"x": {"min": [1, 3, 48, 192], "opt": [2, 3, 48, 192], "max": [8, 3, 48, 192]}}}
]
_CHANGES: tuple[Document, ...] = (
    {"profiles": _FEWER_LINES},
    {"profiles": _FEWER_LINES, "precision": "fp16"},
    {"profiles": _FEWER_LINES, "precision": "fp16"} | NEXT,
)
_REPLACE: Document = {"rollout": {"whenFull": "replace"}}
_MANY = 300


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """What was rolled out, and what a client saw of it.

    Attributes:
        keys: of the engines that were to serve, in order.
        traffic: of the client, from before the first change until the last engine has answered for a while.
        waiting: the target's status while it found no GPU; empty: it never did.
    """

    keys: tuple[str, ...]
    traffic: Traffic
    waiting: Document


def change_three_times(tenant: Tenant, log: Path) -> Rollout:
    """Change what an engine is made of, while a second GPU is free."""
    keys = [serve(tenant)]
    with steady_traffic(service_address(tenant, ENGINE_NAME), ENGINE_NAME, log) as traffic:
        answer_on(tenant, traffic, 1)
        keys += [roll_out(tenant, traffic, **change) for change in _CHANGES]
        answer_on(tenant, traffic, _MANY)
    return Rollout(keys=tuple(keys), traffic=traffic, waiting={})


def wait_for_a_gpu(tenant: Tenant, log: Path) -> Rollout:
    """Change the engine on the only GPU, let it wait for a while, and have another GPU come."""
    _have_one_gpu(tenant)
    old = serve(tenant)
    with steady_traffic(service_address(tenant, ENGINE_NAME), ENGINE_NAME, log) as traffic:
        answer_on(tenant, traffic, 1)
        apply(tenant, **NEXT)
        waiting = tenant.until(lambda: _waiting(tenant), "it says that it waits")
        answer_on(tenant, traffic, _MANY)
        assert traffic.engines() == [old]
        new = _switched(tenant, traffic, lambda: _offer_gpus(tenant.cluster))
        answer_on(tenant, traffic, _MANY)
    return Rollout(keys=(old, new), traffic=traffic, waiting=waiting)


def make_room(tenant: Tenant, log: Path) -> Rollout:
    """Change the engine on the only GPU and back, where `rollout.whenFull` lets the serving replica make room.

    On the way there the build needs the GPU as well; the way back is a rollout alone.
    """
    _have_one_gpu(tenant)
    old = serve(tenant, **_REPLACE)
    with steady_traffic(service_address(tenant, ENGINE_NAME), ENGINE_NAME, log) as traffic:
        answer_on(tenant, traffic, 1)
        new = roll_out(tenant, traffic, **_REPLACE, **NEXT)
        back = roll_out(tenant, traffic, **_REPLACE)
        answer_on(tenant, traffic, _MANY)
    return Rollout(keys=(old, new, back), traffic=traffic, waiting={})


def apply(tenant: Tenant, **spec: object) -> None:
    """Apply the engine with one target, whose GPU is an L4; `spec` adds to it."""
    tenant.apply(ENGINE_NAME, [_L4], **spec)


def serve(tenant: Tenant, **spec: object) -> str:
    """Apply the engine; return the key that serves once it is Ready."""
    apply(tenant, **spec)
    tenant.until_ready(ENGINE_NAME)
    return _serving(tenant)


def roll_out(tenant: Tenant, traffic: Traffic, **spec: object) -> str:
    """Change the spec; return the key that serves once the client has come to it and nothing else is left."""
    return _switched(tenant, traffic, lambda: apply(tenant, **spec))


def answer_on(tenant: Tenant, traffic: Traffic, requests: int) -> None:
    """Wait for so many more answers."""
    seen = len(traffic.answers())
    tenant.until(lambda: len(traffic.answers()) >= seen + requests, "the client is answered")


def target(tenant: Tenant) -> dict[str, Any]:
    """Return what the status says of the target."""
    return tenant.target(ENGINE_NAME, TARGET)


def _waiting(tenant: Tenant) -> Document | None:
    seen = target(tenant)
    return seen if seen.get("phase") == "WaitingForGPU" else None


def _switched(tenant: Tenant, traffic: Traffic, cause: Callable[[], None]) -> str:
    seen = len(traffic.engines())
    cause()
    tenant.until(lambda: len(traffic.engines()) > seen, "the client comes to another engine")
    tenant.until_ready(ENGINE_NAME)
    return _serving(tenant)


def _serving(tenant: Tenant) -> str:
    (key,) = target(tenant)["serving"]
    return str(key)


def _have_one_gpu(tenant: Tenant) -> None:
    """Withdraw one of the two L4 before anybody has it."""
    _offer_gpus(tenant.cluster, "nvidia.com/gpu=1")
    shown = r"-o=jsonpath={.status.allocatable.nvidia\.com/gpu}"
    tenant.until(lambda: tenant.cluster.kubectl("get", "node", "gpu-l4", shown) == "1", "one GPU is left")


def _offer_gpus(cluster: Cluster, *counts: str) -> None:
    """Change how many L4 there are; without counts all are back."""
    changed = cluster.run(ROOT / "hack/cluster", "gpus", "gpu-l4", *counts)
    assert changed.returncode == 0, changed.stderr
