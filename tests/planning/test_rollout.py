"""Which engines a target runs: every rule of a rollout, every way back, and what never restarts a server."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from enginesmith_contract.backends import Backend, Toolchain
from enginesmith_contract.pull_request import PullableEngine
from enginesmith_operator.api.engine_status import ExcludedNode, RejectedEngine, TargetPhase
from enginesmith_operator.api.serving import WhenFull
from enginesmith_operator.planning.cloud_labels import LabelPin
from enginesmith_operator.planning.rollout import PATIENCE_SECONDS, RULES, decide_rollout
from enginesmith_operator.planning.rollout_facts import find_facts
from enginesmith_operator.planning.rollout_state import (
    EngineState,
    Obstacle,
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
    **fields: Any,  # noqa: ANN401 - fields of a record are of any type
) -> WantedEngine:
    """An engine of the plan."""
    return WantedEngine(servable=engine, state=state, nodes=tuple(nodes), **fields)


def runs(*engines: ServableEngine, ready: int = 1, old: int = 0, replicas: int = 1, **fields: Any) -> RunningPods:  # noqa: ANN401
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
    **fields: Any,  # noqa: ANN401 - fields of a record are of any type
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
        want_last_good=_letters(state.last_good) if want_last_good is None else want_last_good,
    )


def after_a(want_status: str, want_engines: str, **fields: Any) -> Case:  # noqa: ANN401
    """A case where engine A served last and runs; B is wanted, and stored."""
    fields = {"wanted": (wanted(B),), "last_good": (A,), "running": runs(A)} | fields
    return case(want_status, want_engines, **fields)


def _letters(engines: Sequence[ServableEngine]) -> str:
    return "".join(sorted(engine.key[:1] for engine in engines))


STORED_A, STORED_B = (wanted(A),), (wanted(B),)
BUILDING_B, FAILED_B = (wanted(B, EngineState.BUILDING),), (wanted(B, EngineState.FAILED),)
WAITING_B = (wanted(B, EngineState.QUEUED, waits_since=LONG_AGO),)
PENDING = A.model_copy(update={"engine": A.engine.model_copy(update={"engine_key": ""})})
NO_MODEL = Obstacle(reason="SourceMissing", message="the model's file does not exist")
NO_CLAIM = {"obstacle": "ClaimMissing", "message": "the claim does not exist"}
NO_IMAGE = {"obstacle": "ImageCannotBePulled", "obstacle_message": "the image does not exist"}

CASES = {
    "the first engine is built": case(
        "Building Building", "", wanted=(wanted(A, EngineState.BUILDING),), want_replicas=0
    ),
    "keys are pending": case("Preparing Preparing", "", wanted=(wanted(A, EngineState.PENDING),), want_replicas=0),
    "no GPU is free for the first build": case(
        "WaitingForGPU NoFreeGPU", "", wanted=(wanted(A, EngineState.QUEUED, waits_since=LONG_AGO),), want_replicas=0
    ),
    "a build that waits for a moment": case(
        "Building Building", "", wanted=(wanted(A, EngineState.QUEUED, waits_since=JUST_NOW),), want_replicas=0
    ),
    "the only build failed": case(
        "Failed BuildFailed", "", wanted=(wanted(A, EngineState.FAILED, message="out of memory"),), want_replicas=0
    ),
    "no plan and nothing that runs": case("Refused NoPlan", "", refusal="no node has this GPU", want_replicas=0),
    "the first engine is stored": case("RollingOut NewEngine", "a", wanted=STORED_A, replicas=2),
    "of two products one is stored, and serves at once": case(
        "RollingOut NewEngine", "a", wanted=(wanted(A), wanted(ON_L40S, EngineState.BUILDING))
    ),
    "pods start": case("RollingOut Starting", "a", wanted=STORED_A, running=runs(A, ready=0)),
    "all pods are ready": case("Serving Serving", "a", wanted=STORED_A, running=runs(A), want_last_good="a"),
    "all new pods are ready, and an old one is still terminating": after_a(
        "RollingOut Starting", "b", running=runs(B, is_settled=False)
    ),
    "the engine that serves stays while its successor is built": after_a(
        "Serving BuildingNext", "a", wanted=BUILDING_B
    ),
    "a successor whose build failed": after_a("Serving BuildFailed", "a", wanted=FAILED_B),
    "a successor is stored": after_a("RollingOut NewEngine", "b"),
    "without a plan the engine that serves stays": after_a(
        "Serving NoPlan", "a", refusal="the labels are gone", wanted=()
    ),
    "another toolchain waits for all of its products": case(
        "Serving BuildingNext",
        "ad",
        wanted=(wanted(B), wanted(ON_L40S, EngineState.BUILDING)),
        last_good=(OLD_A, OLD_L40S),
        running=runs(OLD_A, OLD_L40S),
    ),
    "with one toolchain a product goes ahead alone": case(
        "RollingOut NewEngine",
        "bc",
        wanted=(wanted(B), wanted(servable("e", "NVIDIA-L40S"), EngineState.BUILDING)),
        last_good=(A, ON_L40S),
        running=runs(A, ON_L40S),
    ),
    "a new pod waits for a moment": after_a(
        "RollingOut Starting", "b", running=runs(B, ready=0, old=1, unschedulable_since=JUST_NOW)
    ),
    "no GPU is free for a new pod: it waits, and the old one serves": after_a(
        "WaitingForGPU NoFreeGPU", "b", running=runs(B, ready=0, old=1, unschedulable_since=LONG_AGO)
    ),
    "no GPU is free for a new pod: the old one stops": after_a(
        "RollingOut Replacing",
        "b",
        running=runs(B, ready=0, old=1, unschedulable_since=LONG_AGO),
        when_full=WhenFull.REPLACE,
        want_strategy=Strategy.REPLACE,
    ),
    "a replacement continues when the first new pod has its GPU": after_a(
        "RollingOut Starting",
        "b",
        replicas=3,
        running=runs(B, ready=1, old=1, replicas=3, strategy=Strategy.REPLACE),
        when_full=WhenFull.REPLACE,
        want_strategy=Strategy.REPLACE,
    ),
    "nothing is left to replace": case(
        "WaitingForGPU NoFreeGPU",
        "b",
        wanted=STORED_B,
        running=runs(B, ready=0, unschedulable_since=LONG_AGO),
        when_full=WhenFull.REPLACE,
    ),
    "no GPU is free for the successor's build: a replica stops": after_a(
        "Building MadeRoom", "a", wanted=WAITING_B, when_full=WhenFull.REPLACE, want_replicas=0
    ),
    "the replica stays stopped while the build runs": after_a(
        "Building MadeRoom",
        "a",
        wanted=BUILDING_B,
        replicas=2,
        running=runs(A, ready=1, replicas=1),
        when_full=WhenFull.REPLACE,
        want_replicas=1,
    ),
    "the replica starts again when the build failed": after_a(
        "RollingOut Starting", "a", wanted=FAILED_B, running=runs(A, ready=0, replicas=0), when_full=WhenFull.REPLACE
    ),
    "no replica stops for a build where the spec does not allow it": after_a(
        "WaitingForGPU NoFreeGPU", "a", wanted=WAITING_B
    ),
    "with several products no replica stops for a build": case(
        "WaitingForGPU NoFreeGPU",
        "ac",
        wanted=(wanted(B, EngineState.QUEUED, waits_since=LONG_AGO), wanted(ON_L40S)),
        last_good=(A, ON_L40S),
        running=runs(A, ON_L40S),
        when_full=WhenFull.REPLACE,
    ),
    "a refused engine goes back to the one that served": after_a(
        "Serving RolledBack", "a", running=runs(B, ready=0, old=1, troubles=(trouble(Trouble.REFUSED_ENGINE),))
    ),
    "a refused engine stays rejected when its pods are gone": after_a(
        "Serving RolledBack",
        "a",
        rejected=(RejectedEngine(key="b" * 64, reason="DriverFloor", message="too old", node="n1"),),
    ),
    "a refused engine with nothing to go back to has no pods": case(
        "Failed DriverFloor",
        "b",
        wanted=STORED_B,
        running=runs(B, ready=0, troubles=(trouble(Trouble.REFUSED_ENGINE),)),
        want_replicas=0,
    ),
    "a crash goes back like a refusal where another engine served": after_a(
        "Serving RolledBack", "a", running=runs(B, ready=0, old=1, troubles=(trouble(Trouble.CRASHING, key=None),))
    ),
    "an engine that served and is refused now, with nothing to go back to, has no pods": after_a(
        "Failed DriverFloor",
        "a",
        wanted=STORED_A,
        running=runs(A, ready=0, troubles=(trouble(Trouble.REFUSED_ENGINE, key="a" * 64),)),
        want_replicas=0,
    ),
    "an engine that served and that its only node refuses now has no pods": after_a(
        "Failed DriverFloor",
        "a",
        wanted=(wanted(A, nodes=["n1"]),),
        running=runs(A, ready=0, troubles=(trouble(Trouble.REFUSED_NODE, key="a" * 64),)),
        want_replicas=0,
    ),
    "an engine that served and is refused now has no pods without a plan either": after_a(
        "Refused NoPlan",
        "a",
        refusal="the labels are gone",
        running=runs(A, ready=0, troubles=(trouble(Trouble.REFUSED_ENGINE, key="a" * 64),)),
        wanted=(),
        want_replicas=0,
    ),
    "a replica serves on while others refuse its engine": after_a(
        "Serving FewerReplicas",
        "a",
        wanted=STORED_A,
        replicas=2,
        running=runs(A, ready=1, replicas=2, troubles=(trouble(Trouble.REFUSED_ENGINE, key="a" * 64),)),
    ),
    "the successor of an engine that was refused after it had served": after_a(
        "Serving BuildingNext",
        "a",
        wanted=BUILDING_B,
        rejected=(RejectedEngine(key="a" * 64, reason="Tampered", node="n1"),),
    ),
    "an idle replica stops on the last GPU, though serving ones would wait": after_a(
        "RollingOut Replacing",
        "b",
        running=runs(B, ready=0, idle_old=1, is_settled=False, unschedulable_since=LONG_AGO),
        want_strategy=Strategy.REPLACE,
    ),
    "a replica that stops for another one is still terminating": after_a(
        "RollingOut Replacing",
        "b",
        running=runs(B, ready=0, is_settled=False, unschedulable_since=LONG_AGO, strategy=Strategy.REPLACE),
        when_full=WhenFull.REPLACE,
    ),
    "a replacement that has begun is over where the spec no longer allows it": after_a(
        "RollingOut Starting", "b", replicas=2, running=runs(B, ready=1, old=1, replicas=2, strategy=Strategy.REPLACE)
    ),
    "engines that served are not rejected for a crash": after_a(
        "Serving FewerReplicas",
        "a",
        wanted=STORED_A,
        replicas=2,
        running=runs(A, ready=1, replicas=2, troubles=(trouble(Trouble.CRASHING, key="a" * 64),)),
    ),
    "a node that refuses is avoided, and another is tried": case(
        "RollingOut Starting", "b", wanted=STORED_B, running=runs(B, ready=0, troubles=(trouble(Trouble.REFUSED_NODE),))
    ),
    "the only node refuses": case(
        "Failed DriverFloor",
        "b",
        wanted=(wanted(B, nodes=["n1"]),),
        running=runs(B, ready=0, troubles=(trouble(Trouble.REFUSED_NODE),)),
        want_replicas=0,
    ),
    "a refused engine has no pods where an autoscaler owns the number": case(
        "Failed DriverFloor",
        "b",
        wanted=(wanted(B, nodes=["n1"]),),
        replicas=None,
        running=runs(B, ready=0, troubles=(trouble(Trouble.REFUSED_NODE),)),
        want_replicas=0,
    ),
    "an autoscaler's Deployment is created without a number": case(
        "RollingOut NewEngine", "a", wanted=STORED_A, replicas=None
    ),
    "an autoscaler's 0 replicas stay": after_a(
        "Idle ScaledToZero", "a", wanted=STORED_A, replicas=None, running=runs(A, ready=0, replicas=0)
    ),
    "an autoscaler's number stays": after_a(
        "Serving Serving", "a", wanted=STORED_A, replicas=None, running=runs(A, ready=5, replicas=5)
    ),
    "a standby has no pods": case("Standby TargetBeforeServes", "a", wanted=STORED_A, serves=False, want_replicas=0),
    "a target without replicas": case("Idle NoReplicas", "a", wanted=STORED_A, replicas=0),
    "a lost replica starts no rollout": after_a(
        "Serving FewerReplicas", "a", wanted=STORED_A, replicas=2, running=runs(A, ready=1, replicas=2)
    ),
    "a pod of an earlier template is still terminating": after_a(
        "Serving Settling", "a", wanted=STORED_A, running=runs(A, is_settled=False)
    ),
    "an engine that is found serving stays where nothing is remembered": case(
        "Serving BuildingNext", "a", wanted=BUILDING_B, running=runs(A), want_last_good="a"
    ),
    "notes that cannot be read stop nothing": case(
        "Building Building", "", wanted=BUILDING_B, replicas=2, running=runs(ready=2, replicas=2)
    ),
    "the model cannot be prepared": case(
        "Preparing SourceMissing",
        "",
        wanted=(wanted(A, EngineState.PENDING),),
        model_obstacle=NO_MODEL,
        want_replicas=0,
    ),
    "the first build cannot run": case(
        "Building ClaimMissing", "", wanted=(wanted(A, EngineState.BUILDING, **NO_CLAIM),), want_replicas=0
    ),
    "the next build cannot run": after_a(
        "Serving ClaimMissing", "a", wanted=(wanted(B, EngineState.BUILDING, **NO_CLAIM),)
    ),
    "the next model cannot be prepared": after_a(
        "Serving SourceMissing", "a", wanted=(wanted(PENDING, EngineState.PENDING),), model_obstacle=NO_MODEL
    ),
    "a model that is known needs no preparation": after_a(
        "Serving Serving", "a", wanted=STORED_A, model_obstacle=NO_MODEL
    ),
    "a next model without a key is not tried, though its node refused every engine": after_a(
        "Serving BuildingNext",
        "a",
        wanted=(wanted(PENDING, EngineState.PENDING, nodes=["n1"]),),
        excluded=(ExcludedNode(name="n1", reason="NoEngineForGpu", message="no engine fits"),),
    ),
    "a node that is drained": after_a(
        "Serving NodeCordoned", "a", wanted=STORED_A, replicas=2, running=runs(A, replicas=2), drain="gpu-1 is cordoned"
    ),
    "a node that is drained while the next build waits for a GPU": after_a(
        "WaitingForGPU NoFreeGPU", "a", wanted=WAITING_B, drain="gpu-1 is cordoned"
    ),
    "a node that is drained while a rejected engine goes back": after_a(
        "Serving NodeCordoned",
        "a",
        running=runs(B, ready=0, old=1, troubles=(trouble(Trouble.REFUSED_ENGINE),)),
        drain="gpu-1 is cordoned",
    ),
    "no GPU is free for a lost replica": after_a(
        "Serving NoFreeGPU", "a", wanted=STORED_A, replicas=2, running=runs(A, replicas=2, unschedulable_since=LONG_AGO)
    ),
    "the only node for a lost replica is cordoned": after_a(
        "Serving NodeCordoned",
        "a",
        wanted=STORED_A,
        replicas=2,
        running=runs(A, replicas=2, unschedulable_since=LONG_AGO, cordoned=("n2",)),
    ),
    "a lost replica cannot start": after_a(
        "Serving ImageCannotBePulled", "a", wanted=STORED_A, replicas=2, running=runs(A, replicas=2, **NO_IMAGE)
    ),
    "the first pods crash": case(
        "Failed DriverFloor", "b", wanted=STORED_B, running=runs(B, ready=0, troubles=(trouble(Trouble.CRASHING),))
    ),
    "the first pods cannot start": case(
        "RollingOut ImageCannotBePulled", "a", wanted=STORED_A, running=runs(A, ready=0, **NO_IMAGE)
    ),
}


def _decide(state: RolloutState) -> RolloutDecision:
    return decide_rollout(state, NOW)


@pytest.mark.parametrize("name", CASES)
def test_a_rollout(name: str) -> None:
    row = CASES[name]

    decision = _decide(row.state)

    assert _letters(decision.template_engines) == row.want_engines
    assert decision.replicas == row.want_replicas
    assert f"{decision.phase} {decision.reason}" == row.want_status
    assert decision.strategy is row.want_strategy
    assert _letters(decision.last_good) == row.want_last_good
    assert decision.message
    assert "\n" not in decision.message


def test_every_rule_decides_a_case() -> None:
    deciding = set()
    for row in CASES.values():
        facts = find_facts(row.state, NOW)
        deciding.add(next(rule for rule in RULES if rule(facts) is not None))

    assert [rule.__name__ for rule in RULES if rule not in deciding] == []


@pytest.mark.parametrize("name", CASES)
def test_the_same_state_decides_the_same_again(name: str) -> None:
    state = CASES[name].state
    first = _decide(state)
    remembered = state.model_copy(
        update={"rejected": first.rejected, "excluded": first.excluded, "last_good": first.last_good}
    )

    second = _decide(remembered)

    assert (second.template_engines, second.replicas, second.rejected, second.excluded) == (
        first.template_engines,
        first.replicas,
        first.rejected,
        first.excluded,
    )


def test_a_pod_without_a_free_gpu_names_the_resource_and_the_nodes() -> None:
    first = rollout(wanted=STORED_B, running=runs(B, ready=0, unschedulable_since=LONG_AGO))
    refused = first.model_copy(update={"excluded": (ExcludedNode(name="n1", reason="DriverFloor", message="old"),)})

    assert _decide(first).message == "no free nvidia.com/gpu on 2 nodes (n1, n2) for a new replica"
    assert _decide(refused).message == "no free nvidia.com/gpu on node n2 for a new replica"


def test_a_product_that_joins_restarts_nothing_until_a_pod_needs_the_place() -> None:
    state = rollout(
        wanted=(wanted(A), wanted(ON_L40S)), last_good=(A,), replicas=2, running=runs(A, ready=2, replicas=2)
    )
    full = runs(A, ready=1, replicas=2, unschedulable_since=LONG_AGO)

    at_rest, in_need = _decide(state), _decide(state.model_copy(update={"running": full}))

    assert (_letters(at_rest.template_engines), at_rest.phase) == ("a", TargetPhase.SERVING)
    assert "NVIDIA-L40S" in at_rest.message
    assert _letters(in_need.template_engines) == "ac"


def test_a_product_that_leaves_restarts_nothing() -> None:
    state = rollout(wanted=(wanted(A),), last_good=(A, ON_L40S), running=runs(A, ON_L40S))

    assert _letters(_decide(state).template_engines) == "ac"


def test_another_spelling_of_a_label_restarts_nothing_until_a_pod_needs_the_place() -> None:
    renamed = servable("a", label="L4")
    state = rollout(wanted=(wanted(renamed),), last_good=(A,), running=runs(A))
    full = runs(A, ready=0, unschedulable_since=LONG_AGO)

    assert _decide(state).template_engines == (A,)
    assert _decide(state.model_copy(update={"running": full})).template_engines == (renamed,)


def test_a_rejected_engine_is_forgotten_when_its_inputs_change() -> None:
    rejected = (RejectedEngine(key="b" * 64, reason="Tampered", node="n1"),)
    state = rollout(wanted=(wanted(servable("e")),), last_good=(A,), rejected=rejected, running=runs(A))

    decision = _decide(state)

    assert decision.rejected == ()
    assert _letters(decision.template_engines) == "e"


def test_a_pod_that_fails_before_it_took_an_engine_rejects_none_that_served() -> None:
    new = servable("e", "NVIDIA-L40S")
    crashed = runs(A, new, ready=1, replicas=2, troubles=(trouble(Trouble.CRASHING, key=None),))
    state = rollout(wanted=(wanted(A), wanted(new)), last_good=(A, ON_L40S), replicas=2, running=crashed)

    decision = _decide(state)

    assert [one.key[:1] for one in decision.rejected] == ["e"]
    assert _letters(decision.template_engines) == "ac"


def test_an_engine_that_served_is_not_rejected_for_a_crash() -> None:
    crashed = runs(A, ready=1, replicas=2, troubles=(trouble(Trouble.CRASHING, key="a" * 64),))

    assert _decide(rollout(wanted=(wanted(A),), last_good=(A,), running=crashed)).rejected == ()


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
    assert (mended.excluded, mended.replicas, _letters(mended.template_engines)) == ((), 1, "b")


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

    assert _letters(decision.template_engines) == "c"
    assert decision.must_avoid == ("n1",)


def test_patience_says_when_to_look_again() -> None:
    waiting = rollout(wanted=(wanted(A, EngineState.QUEUED, waits_since=JUST_NOW),))

    assert _decide(waiting).look_again_seconds == PATIENCE_SECONDS - 1
    assert _decide(rollout(wanted=(wanted(A),), running=runs(A))).look_again_seconds is None
