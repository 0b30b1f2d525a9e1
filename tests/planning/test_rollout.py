"""Which engines a target runs: every step of a rollout, its ways back, and what never restarts a server."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from enginesmith_contract.backends import Backend, Toolchain
from enginesmith_contract.pull_request import PullableEngine
from enginesmith_operator.api.engine_status import ExcludedNode, RejectedEngine, TargetPhase
from enginesmith_operator.api.serving import WhenFull
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
    waits_since: datetime | None = None,
    message: str = "",
) -> WantedEngine:
    """An engine of the plan."""
    return WantedEngine(servable=engine, state=state, nodes=tuple(nodes), waits_since=waits_since, message=message)


def runs(*engines: ServableEngine, ready: int = 1, old: int = 0, replicas: int = 1, **fields: Any) -> RunningPods:
    """A Deployment; `old` pods of an older template are ready beside."""
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


class Case(NamedTuple):
    """One state and what is decided for it."""

    state: RolloutState
    want_run: str
    want_replicas: int | None
    want_phase: TargetPhase
    want_reason: str
    want_strategy: Strategy = Strategy.SURGE
    want_served: str = ""


CASES = {
    "the first engine is on its way": Case(
        rollout(wanted=(wanted(A, EngineState.BUILDING),)), "", 0, TargetPhase.BUILDING, "Building"
    ),
    "keys are pending": Case(
        rollout(wanted=(wanted(A, EngineState.PENDING),)), "", 0, TargetPhase.PREPARING, "Preparing"
    ),
    "no GPU is free for the first build": Case(
        rollout(wanted=(wanted(A, EngineState.QUEUED, waits_since=LONG_AGO),)),
        "",
        0,
        TargetPhase.WAITING_FOR_GPU,
        "NoFreeGPU",
    ),
    "a build that waits for a moment is no news": Case(
        rollout(wanted=(wanted(A, EngineState.QUEUED, waits_since=JUST_NOW),)),
        "",
        0,
        TargetPhase.BUILDING,
        "Building",
    ),
    "the only build failed": Case(
        rollout(wanted=(wanted(A, EngineState.FAILED, message="out of memory"),)),
        "",
        0,
        TargetPhase.FAILED,
        "BuildFailed",
    ),
    "no plan and nothing that runs": Case(
        rollout(refusal="no node has this GPU"), "", 0, TargetPhase.REFUSED, "NoPlan"
    ),
    "the first engine is stored": Case(
        rollout(wanted=(wanted(A),), replicas=2), "a", 2, TargetPhase.ROLLING_OUT, "NewEngine"
    ),
    "of two products one is stored, and serves at once": Case(
        rollout(wanted=(wanted(A), wanted(ON_L40S, EngineState.BUILDING))),
        "a",
        1,
        TargetPhase.ROLLING_OUT,
        "NewEngine",
    ),
    "pods start": Case(
        rollout(wanted=(wanted(A),), running=runs(A, ready=0)), "a", 1, TargetPhase.ROLLING_OUT, "Starting"
    ),
    "all pods are ready": Case(
        rollout(wanted=(wanted(A),), running=runs(A)), "a", 1, TargetPhase.SERVING, "Serving", want_served="a"
    ),
    "all new pods are ready, and an old one still ends": Case(
        rollout(wanted=(wanted(B),), served=(A,), running=runs(B, is_settled=False)),
        "b",
        1,
        TargetPhase.ROLLING_OUT,
        "Starting",
        want_served="a",
    ),
    "nothing that serves is touched while its successor is built": Case(
        rollout(wanted=(wanted(B, EngineState.BUILDING),), served=(A,), running=runs(A)),
        "a",
        1,
        TargetPhase.SERVING,
        "BuildingNext",
        want_served="a",
    ),
    "a successor whose build failed": Case(
        rollout(wanted=(wanted(B, EngineState.FAILED),), served=(A,), running=runs(A)),
        "a",
        1,
        TargetPhase.SERVING,
        "BuildFailed",
        want_served="a",
    ),
    "a successor is stored": Case(
        rollout(wanted=(wanted(B),), served=(A,), running=runs(A)),
        "b",
        1,
        TargetPhase.ROLLING_OUT,
        "NewEngine",
        want_served="a",
    ),
    "what serves goes on without a plan": Case(
        rollout(refusal="the labels are gone", served=(A,), running=runs(A)),
        "a",
        1,
        TargetPhase.SERVING,
        "NoPlan",
        want_served="a",
    ),
    "another toolchain waits for all of its products": Case(
        rollout(
            wanted=(wanted(B), wanted(ON_L40S, EngineState.BUILDING)),
            served=(OLD_A, OLD_L40S),
            running=runs(OLD_A, OLD_L40S),
        ),
        "ad",
        1,
        TargetPhase.SERVING,
        "BuildingNext",
        want_served="ad",
    ),
    "with one toolchain a product goes ahead alone": Case(
        rollout(
            wanted=(wanted(B), wanted(servable("e", "NVIDIA-L40S"), EngineState.BUILDING)),
            served=(A, ON_L40S),
            running=runs(A, ON_L40S),
        ),
        "bc",
        1,
        TargetPhase.ROLLING_OUT,
        "NewEngine",
        want_served="ac",
    ),
    "a new pod waits for a moment": Case(
        rollout(wanted=(wanted(B),), served=(A,), running=runs(B, ready=0, old=1, unschedulable_since=JUST_NOW)),
        "b",
        1,
        TargetPhase.ROLLING_OUT,
        "Starting",
        want_served="a",
    ),
    "no GPU is free for a new pod: it waits, and the old one serves": Case(
        rollout(wanted=(wanted(B),), served=(A,), running=runs(B, ready=0, old=1, unschedulable_since=LONG_AGO)),
        "b",
        1,
        TargetPhase.WAITING_FOR_GPU,
        "NoFreeGPU",
        want_served="a",
    ),
    "no GPU is free for a new pod: the old one makes room": Case(
        rollout(
            wanted=(wanted(B),),
            served=(A,),
            running=runs(B, ready=0, old=1, unschedulable_since=LONG_AGO),
            when_full=WhenFull.REPLACE,
        ),
        "b",
        1,
        TargetPhase.ROLLING_OUT,
        "Replacing",
        Strategy.REPLACE,
        want_served="a",
    ),
    "replacing goes on when the first new pod has its GPU": Case(
        rollout(
            wanted=(wanted(B),),
            served=(A,),
            replicas=3,
            running=runs(B, ready=1, old=1, replicas=3, strategy=Strategy.REPLACE),
            when_full=WhenFull.REPLACE,
        ),
        "b",
        3,
        TargetPhase.ROLLING_OUT,
        "Starting",
        Strategy.REPLACE,
        want_served="a",
    ),
    "nothing is left to replace": Case(
        rollout(
            wanted=(wanted(B),),
            running=runs(B, ready=0, unschedulable_since=LONG_AGO),
            when_full=WhenFull.REPLACE,
        ),
        "b",
        1,
        TargetPhase.WAITING_FOR_GPU,
        "NoFreeGPU",
    ),
    "no GPU is free for the successor's build: a replica makes room": Case(
        rollout(
            wanted=(wanted(B, EngineState.QUEUED, waits_since=LONG_AGO),),
            served=(A,),
            running=runs(A),
            when_full=WhenFull.REPLACE,
        ),
        "a",
        0,
        TargetPhase.BUILDING,
        "MadeRoom",
        want_served="a",
    ),
    "the replica stays away while the build runs": Case(
        rollout(
            wanted=(wanted(B, EngineState.BUILDING),),
            served=(A,),
            replicas=2,
            running=runs(A, ready=1, replicas=1),
            when_full=WhenFull.REPLACE,
        ),
        "a",
        1,
        TargetPhase.BUILDING,
        "MadeRoom",
        want_served="a",
    ),
    "the replica comes back when the build failed": Case(
        rollout(
            wanted=(wanted(B, EngineState.FAILED),),
            served=(A,),
            running=runs(A, ready=0, replicas=0),
            when_full=WhenFull.REPLACE,
        ),
        "a",
        1,
        TargetPhase.ROLLING_OUT,
        "Starting",
        want_served="a",
    ),
    "nobody makes room where it is not asked for": Case(
        rollout(wanted=(wanted(B, EngineState.QUEUED, waits_since=LONG_AGO),), served=(A,), running=runs(A)),
        "a",
        1,
        TargetPhase.WAITING_FOR_GPU,
        "NoFreeGPU",
        want_served="a",
    ),
    "a product that is served on several GPUs makes no room for one": Case(
        rollout(
            wanted=(wanted(B, EngineState.QUEUED, waits_since=LONG_AGO), wanted(ON_L40S)),
            served=(A, ON_L40S),
            running=runs(A, ON_L40S),
            when_full=WhenFull.REPLACE,
        ),
        "ac",
        1,
        TargetPhase.WAITING_FOR_GPU,
        "NoFreeGPU",
        want_served="ac",
    ),
    "a refused engine goes back to the one that served": Case(
        rollout(
            wanted=(wanted(B),),
            served=(A,),
            running=runs(B, ready=0, old=1, troubles=(trouble(Trouble.REFUSED_ENGINE),)),
        ),
        "a",
        1,
        TargetPhase.SERVING,
        "RolledBack",
        want_served="a",
    ),
    "a refused engine stays rejected when its pods are gone": Case(
        rollout(
            wanted=(wanted(B),),
            served=(A,),
            rejected=(RejectedEngine(key="b" * 64, reason="DriverFloor", message="too old", node="n1"),),
            running=runs(A),
        ),
        "a",
        1,
        TargetPhase.SERVING,
        "RolledBack",
        want_served="a",
    ),
    "a refused engine with nothing to go back to has no pods": Case(
        rollout(wanted=(wanted(B),), running=runs(B, ready=0, troubles=(trouble(Trouble.REFUSED_ENGINE),))),
        "b",
        0,
        TargetPhase.FAILED,
        "DriverFloor",
    ),
    "a crash is as final as a refusal where another engine served": Case(
        rollout(
            wanted=(wanted(B),),
            served=(A,),
            running=runs(B, ready=0, old=1, troubles=(trouble(Trouble.CRASHING, key=None),)),
        ),
        "a",
        1,
        TargetPhase.SERVING,
        "RolledBack",
        want_served="a",
    ),
    "an engine that served and is refused now, with nothing to go back to, has no pods": Case(
        rollout(
            wanted=(wanted(A),),
            served=(A,),
            running=runs(A, ready=0, troubles=(trouble(Trouble.REFUSED_ENGINE, key="a" * 64),)),
        ),
        "a",
        0,
        TargetPhase.FAILED,
        "DriverFloor",
        want_served="a",
    ),
    "an engine that served and that its only node refuses now has no pods": Case(
        rollout(
            wanted=(wanted(A, nodes=["n1"]),),
            served=(A,),
            running=runs(A, ready=0, troubles=(trouble(Trouble.REFUSED_NODE, key="a" * 64),)),
        ),
        "a",
        0,
        TargetPhase.FAILED,
        "DriverFloor",
        want_served="a",
    ),
    "an engine that served and is refused now has no pods without a plan either": Case(
        rollout(
            refusal="the labels are gone",
            served=(A,),
            running=runs(A, ready=0, troubles=(trouble(Trouble.REFUSED_ENGINE, key="a" * 64),)),
        ),
        "a",
        0,
        TargetPhase.REFUSED,
        "NoPlan",
        want_served="a",
    ),
    "a replica of an engine that others refuse goes on": Case(
        rollout(
            wanted=(wanted(A),),
            served=(A,),
            replicas=2,
            running=runs(A, ready=1, replicas=2, troubles=(trouble(Trouble.REFUSED_ENGINE, key="a" * 64),)),
        ),
        "a",
        2,
        TargetPhase.SERVING,
        "FewerReplicas",
        want_served="a",
    ),
    "the successor of an engine that was refused after it had served": Case(
        rollout(
            wanted=(wanted(B, EngineState.BUILDING),),
            served=(A,),
            rejected=(RejectedEngine(key="a" * 64, reason="Tampered", node="n1"),),
            running=runs(A),
        ),
        "a",
        1,
        TargetPhase.SERVING,
        "BuildingNext",
        want_served="a",
    ),
    "a replica that serves nobody makes room on the last GPU, though serving ones would wait": Case(
        rollout(
            wanted=(wanted(B),),
            served=(A,),
            running=runs(B, ready=0, idle_old=1, is_settled=False, unschedulable_since=LONG_AGO),
        ),
        "b",
        1,
        TargetPhase.ROLLING_OUT,
        "Replacing",
        Strategy.REPLACE,
        want_served="a",
    ),
    "a replica that makes room is still ending": Case(
        rollout(
            wanted=(wanted(B),),
            served=(A,),
            running=runs(B, ready=0, is_settled=False, unschedulable_since=LONG_AGO, strategy=Strategy.REPLACE),
            when_full=WhenFull.REPLACE,
        ),
        "b",
        1,
        TargetPhase.ROLLING_OUT,
        "Replacing",
        want_served="a",
    ),
    "a serving replica outlives one that made room": Case(
        rollout(
            wanted=(wanted(B),),
            served=(A,),
            replicas=2,
            running=runs(B, ready=1, old=1, replicas=2, strategy=Strategy.REPLACE),
        ),
        "b",
        2,
        TargetPhase.ROLLING_OUT,
        "Starting",
        want_served="a",
    ),
    "engines that served are not rejected for a crash": Case(
        rollout(
            wanted=(wanted(A),),
            served=(A,),
            replicas=2,
            running=runs(A, ready=1, replicas=2, troubles=(trouble(Trouble.CRASHING, key="a" * 64),)),
        ),
        "a",
        2,
        TargetPhase.SERVING,
        "FewerReplicas",
        want_served="a",
    ),
    "a node that refuses is avoided, and another is tried": Case(
        rollout(wanted=(wanted(B),), running=runs(B, ready=0, troubles=(trouble(Trouble.REFUSED_NODE),))),
        "b",
        1,
        TargetPhase.ROLLING_OUT,
        "Starting",
    ),
    "the only node refuses": Case(
        rollout(wanted=(wanted(B, nodes=["n1"]),), running=runs(B, ready=0, troubles=(trouble(Trouble.REFUSED_NODE),))),
        "b",
        0,
        TargetPhase.FAILED,
        "DriverFloor",
    ),
    "an autoscaler's target is put to rest as well": Case(
        rollout(
            wanted=(wanted(B, nodes=["n1"]),),
            replicas=None,
            running=runs(B, ready=0, troubles=(trouble(Trouble.REFUSED_NODE),)),
        ),
        "b",
        0,
        TargetPhase.FAILED,
        "DriverFloor",
    ),
    "an autoscaler's Deployment begins without a number": Case(
        rollout(wanted=(wanted(A),), replicas=None), "a", None, TargetPhase.ROLLING_OUT, "NewEngine"
    ),
    "an autoscaler that keeps no replicas is not woken": Case(
        rollout(wanted=(wanted(A),), replicas=None, served=(A,), running=runs(A, ready=0, replicas=0)),
        "a",
        None,
        TargetPhase.IDLE,
        "ScaledToZero",
        want_served="a",
    ),
    "an autoscaler then owns the number": Case(
        rollout(wanted=(wanted(A),), replicas=None, served=(A,), running=runs(A, ready=5, replicas=5)),
        "a",
        None,
        TargetPhase.SERVING,
        "Serving",
        want_served="a",
    ),
    "a standby sleeps": Case(
        rollout(wanted=(wanted(A),), serves=False), "a", 0, TargetPhase.STANDBY, "TargetBeforeServes"
    ),
    "a target without replicas": Case(rollout(wanted=(wanted(A),), replicas=0), "a", 0, TargetPhase.IDLE, "NoReplicas"),
    "a lost replica is no rollout": Case(
        rollout(wanted=(wanted(A),), served=(A,), replicas=2, running=runs(A, ready=1, replicas=2)),
        "a",
        2,
        TargetPhase.SERVING,
        "FewerReplicas",
        want_served="a",
    ),
    "a pod of an earlier template that still ends takes nothing from what serves": Case(
        rollout(wanted=(wanted(A),), served=(A,), running=runs(A, is_settled=False)),
        "a",
        1,
        TargetPhase.SERVING,
        "Settling",
        want_served="a",
    ),
    "what is found serving is not stopped where nobody remembers it": Case(
        rollout(wanted=(wanted(B, EngineState.BUILDING),), running=runs(A)),
        "a",
        1,
        TargetPhase.SERVING,
        "BuildingNext",
        want_served="a",
    ),
    "notes that nobody can read stop nothing": Case(
        rollout(wanted=(wanted(B, EngineState.BUILDING),), replicas=2, running=runs(ready=2, replicas=2)),
        "",
        2,
        TargetPhase.BUILDING,
        "Building",
    ),
}


def _letters(engines: Sequence[ServableEngine]) -> str:
    return "".join(sorted(one.key[:1] for one in engines))


def _decide(state: RolloutState) -> RolloutDecision:
    return decide_rollout(state, NOW)


@pytest.mark.parametrize("name", CASES)
def test_a_rollout(name: str) -> None:
    case = CASES[name]

    decision = _decide(case.state)

    assert _letters(decision.run) == case.want_run
    assert decision.replicas == case.want_replicas
    assert (decision.phase, decision.reason) == (case.want_phase, case.want_reason)
    assert decision.strategy is case.want_strategy
    assert _letters(decision.served) == case.want_served
    assert decision.message
    assert "\n" not in decision.message


@pytest.mark.parametrize("name", CASES)
def test_the_same_state_decides_the_same_again(name: str) -> None:
    state = CASES[name].state
    first = _decide(state)
    remembered = state.model_copy(
        update={"rejected": first.rejected, "excluded": first.excluded, "served": first.served}
    )

    second = _decide(remembered)

    assert (second.run, second.replicas, second.rejected, second.excluded) == (
        first.run,
        first.replicas,
        first.rejected,
        first.excluded,
    )


def test_a_product_that_joins_restarts_nothing_until_a_pod_needs_the_place() -> None:
    state = rollout(wanted=(wanted(A), wanted(ON_L40S)), served=(A,), replicas=2, running=runs(A, ready=2, replicas=2))
    full = runs(A, ready=1, replicas=2, unschedulable_since=LONG_AGO)

    at_rest, in_need = _decide(state), _decide(state.model_copy(update={"running": full}))

    assert (_letters(at_rest.run), at_rest.phase) == ("a", TargetPhase.SERVING)
    assert "NVIDIA-L40S" in at_rest.message
    assert _letters(in_need.run) == "ac"


def test_a_product_that_leaves_restarts_nothing() -> None:
    state = rollout(wanted=(wanted(A),), served=(A, ON_L40S), running=runs(A, ON_L40S))

    assert _letters(_decide(state).run) == "ac"


def test_a_label_that_is_spelled_anew_restarts_nothing_until_a_pod_needs_the_place() -> None:
    renamed = servable("a", label="L4")
    state = rollout(wanted=(wanted(renamed),), served=(A,), running=runs(A))
    full = runs(A, ready=0, unschedulable_since=LONG_AGO)

    assert _decide(state).run == (A,)
    assert _decide(state.model_copy(update={"running": full})).run == (renamed,)


def test_a_rejected_engine_is_forgotten_when_its_inputs_change() -> None:
    rejected = (RejectedEngine(key="b" * 64, reason="Tampered", node="n1"),)
    state = rollout(wanted=(wanted(servable("e")),), served=(A,), rejected=rejected, running=runs(A))

    decision = _decide(state)

    assert decision.rejected == ()
    assert _letters(decision.run) == "e"


def test_a_pod_that_fails_before_it_took_an_engine_rejects_none_that_served() -> None:
    new = servable("e", "NVIDIA-L40S")
    crashed = runs(A, new, ready=1, replicas=2, troubles=(trouble(Trouble.CRASHING, key=None),))
    state = rollout(wanted=(wanted(A), wanted(new)), served=(A, ON_L40S), replicas=2, running=crashed)

    decision = _decide(state)

    assert [one.key[:1] for one in decision.rejected] == ["e"]
    assert _letters(decision.run) == "ac"


def test_an_engine_that_served_is_not_rejected_for_a_crash() -> None:
    crashed = runs(A, ready=1, replicas=2, troubles=(trouble(Trouble.CRASHING, key="a" * 64),))

    assert _decide(rollout(wanted=(wanted(A),), served=(A,), running=crashed)).rejected == ()


def test_a_node_that_refused_is_tried_again_when_its_driver_changed() -> None:
    excluded = (ExcludedNode(name="n1", reason="DriverFloor", message="old", fingerprint="driver 525", key="b" * 64),)
    state = rollout(
        wanted=(wanted(B, nodes=["n1"]),),
        excluded=excluded,
        nodes={"n1": "driver 525"},
        running=runs(B, ready=0, replicas=0),
    )

    assert _decide(state).phase is TargetPhase.FAILED
    assert _decide(state.model_copy(update={"nodes": {}})).phase is TargetPhase.FAILED
    mended = _decide(state.model_copy(update={"nodes": {"n1": "driver 580"}}))
    assert (mended.excluded, mended.replicas, _letters(mended.run)) == ((), 1, "b")


def test_an_engine_that_three_nodes_refuse_is_not_tried_on_a_fourth() -> None:
    nodes = ["n1", "n2", "n3", "n4"]
    troubles = [trouble(Trouble.REFUSED_NODE, node) for node in nodes[:3]]
    states = [
        rollout(wanted=(wanted(B, nodes=nodes),), running=runs(B, ready=0, troubles=tuple(troubles[:count])))
        for count in (1, 2, 3)
    ]

    decisions = [_decide(state) for state in states]

    assert [decision.replicas for decision in decisions] == [1, 1, 0]
    assert decisions[1].must_avoid == ("n1", "n2")
    assert "3 of its 4 nodes" in decisions[2].message


def test_a_gpu_that_no_engine_is_for_excludes_its_node_for_every_engine() -> None:
    state = rollout(
        wanted=(wanted(A, nodes=["n1"]), wanted(ON_L40S, nodes=["n2"])),
        running=runs(A, ON_L40S, ready=0, troubles=(trouble(Trouble.REFUSED_NODE, "n1", key=None),)),
    )

    decision = _decide(state)

    assert _letters(decision.run) == "c"
    assert decision.must_avoid == ("n1",)


def test_patience_says_when_to_look_again() -> None:
    waiting = rollout(wanted=(wanted(A, EngineState.QUEUED, waits_since=JUST_NOW),))

    assert _decide(waiting).look_again_seconds == PATIENCE_SECONDS - 1
    assert _decide(rollout(wanted=(wanted(A),), running=runs(A))).look_again_seconds is None
