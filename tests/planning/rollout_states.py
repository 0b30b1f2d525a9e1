"""States of a rollout for tests: engines A and B for one product, one for another, and what runs of them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from enginesmith_contract.backends import Backend, Toolchain
from enginesmith_contract.pull_request import PullableEngine
from enginesmith_operator.planning.cloud_labels import LabelPin
from enginesmith_operator.planning.rollout import PATIENCE_SECONDS, decide_rollout
from enginesmith_operator.planning.rollout_state import (
    EngineState,
    PodTrouble,
    RolloutDecision,
    RolloutState,
    RunningPods,
    ServableEngine,
    Strategy,
    Trouble,
    WantedEngine,
)

NOW = datetime(2026, 11, 23, tzinfo=UTC)
LONG_AGO = NOW - timedelta(seconds=10 * PATIENCE_SECONDS)
JUST_NOW = NOW - timedelta(seconds=1)
OLD_TOOLCHAIN = Toolchain(name="old", backend=Backend.TENSORRT, version="10.9.0.34", image="runtime@sha256:01")
TOOLCHAIN = Toolchain(name="trt", backend=Backend.TENSORRT, version="10.13.3.9", image="runtime@sha256:02")


def servable(
    letter: str, product: str = "NVIDIA-L4", *, toolchain: Toolchain = TOOLCHAIN, label: str = ""
) -> ServableEngine:
    """An engine whose key is 64 times one letter."""
    return ServableEngine(
        engine=PullableEngine(engine_key=letter * 64, product=product),
        pins=(LabelPin(label="nvidia.com/gpu.product", value=label or product),),
        toolchain=toolchain,
        resource="nvidia.com/gpu",
    )


def wanted(
    engine: ServableEngine,
    state: EngineState = EngineState.STORED,
    *,
    nodes: Sequence[str] = ("n1", "n2"),
    **fields: Any,
) -> WantedEngine:
    """An engine of the plan."""
    return WantedEngine(servable=engine, state=state, nodes=tuple(nodes), **fields)


def runs(*engines: ServableEngine, ready: int = 1, old: int = 0, replicas: int = 1, **fields: Any) -> RunningPods:
    """A Deployment; `old` pods of an older template are ready too."""
    return RunningPods(
        engines=engines,
        replicas=replicas,
        updated_ready=ready,
        ready=ready + old,
        is_settled=fields.pop("is_settled", old == 0),
        **fields,
    )


def rollout(**fields: Any) -> RolloutState:
    """The state of a target with one replica; keywords are fields of it."""
    return RolloutState.model_validate({"replicas": 1} | fields)


def trouble(kind: Trouble, node: str = "n1", key: str | None = "b" * 64) -> PodTrouble:
    """A pod that does not serve."""
    return PodTrouble(trouble=kind, node=node, engine_key=key, reason="DriverFloor", message="the driver is too old")


A, B = servable("a"), servable("b")
ON_L40S = servable("c", "NVIDIA-L40S")
OLD_A = servable("a", toolchain=OLD_TOOLCHAIN)
OLD_L40S = servable("d", "NVIDIA-L40S", toolchain=OLD_TOOLCHAIN)


def letters(engines: Sequence[ServableEngine]) -> str:
    """The first letters of the engines' keys."""
    return "".join(sorted(engine.key[:1] for engine in engines))


STORED_B = (wanted(B),)


def decide(state: RolloutState) -> RolloutDecision:
    """Decide at NOW."""
    return decide_rollout(state, NOW)


class Case(NamedTuple):
    """One state and what is decided for it."""

    state: RolloutState
    want_status: str
    want_engines: str
    want_replicas: int | None
    want_strategy: Strategy
    want_last_good: str


def case(
    want_status: str,
    want_engines: str,
    *,
    want_replicas: int | None = -1,
    want_strategy: Strategy = Strategy.SURGE,
    want_last_good: str | None = None,
    **fields: Any,
) -> Case:
    """A case with one replica where no engine served before; the replicas and the last good engines stay.

    `want_status` is phase and reason, `want_engines` the letters of the template's engines.
    """
    state = rollout(**fields)
    return Case(
        state=state,
        want_status=want_status,
        want_engines=want_engines,
        want_replicas=state.replicas if want_replicas == -1 else want_replicas,
        want_strategy=want_strategy,
        want_last_good=letters(state.last_good) if want_last_good is None else want_last_good,
    )


def after_a(want_status: str, want_engines: str, **given: Any) -> Case:
    """A case where engine A served last and runs; B is wanted, and stored."""
    fields: dict[str, Any] = {"wanted": (wanted(B),), "last_good": (A,), "running": runs(A)} | given
    return case(want_status, want_engines, **fields)
