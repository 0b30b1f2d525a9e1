"""Which engines a target runs: every rule of a rollout, as a table."""

from datetime import datetime
from typing import Any

import pytest
from tests.planning.rollout_states import (
    JUST_NOW,
    LONG_AGO,
    NOW,
    OLD_A,
    OLD_L40S,
    ON_L40S,
    STORED_B,
    A,
    B,
    after_a,
    case,
    decide,
    letters,
    rollout,
    runs,
    servable,
    trouble,
    wanted,
)

from enginesmith_operator.api.engine_status import ExcludedNode, RejectedEngine
from enginesmith_operator.api.serving import WhenFull
from enginesmith_operator.planning.rollout import RULES
from enginesmith_operator.planning.rollout_facts import find_facts
from enginesmith_operator.planning.rollout_state import (
    EngineState,
    Obstacle,
    ServableEngine,
    Strategy,
    Trouble,
)

STORED_A = (wanted(A),)
BUILDING_B, FAILED_B = (wanted(B, EngineState.BUILDING),), (wanted(B, EngineState.FAILED),)
WAITING_B = (wanted(B, EngineState.QUEUED, waits_since=LONG_AGO),)
PENDING = A.model_copy(update={"engine": A.engine.model_copy(update={"engine_key": ""})})
NO_MODEL = Obstacle(reason="SourceMissing", message="the model's file does not exist")
NO_CLAIM = {"obstacle": "ClaimMissing", "message": "the claim does not exist"}
NO_IMAGE: dict[str, Any] = {"obstacle": "ImageCannotBePulled", "obstacle_message": "the image does not exist"}

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
    "the only node refuses another replica": after_a(
        "Serving DriverFloor",
        "a",
        wanted=(wanted(A, nodes=["n1"]),),
        replicas=2,
        running=runs(A, replicas=2, troubles=(trouble(Trouble.REFUSED_NODE, key="a" * 64),)),
    ),
    "the only node has no memory left, and pods of the template that avoids it fit no node": after_a(
        "Serving OutOfMemory",
        "a",
        wanted=(wanted(A, nodes=["n1"]),),
        replicas=2,
        running=runs(A, ready=0, old=1, replicas=2, unschedulable_since=LONG_AGO),
        excluded=(ExcludedNode(name="n1", reason="OutOfMemory", message="1 of 139 GiB are free", key="a" * 64),),
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


@pytest.mark.parametrize("name", CASES)
def test_a_rollout(name: str) -> None:
    row = CASES[name]

    decision = decide(row.state)

    assert letters(decision.template_engines) == row.want_engines
    assert decision.replicas == row.want_replicas
    assert f"{decision.phase} {decision.reason}" == row.want_status
    assert decision.strategy is row.want_strategy
    assert letters(decision.last_good) == row.want_last_good
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
    first = decide(state)
    remembered = state.model_copy(
        update={"rejected": first.rejected, "excluded": first.excluded, "last_good": first.last_good}
    )

    second = decide(remembered)

    assert (second.template_engines, second.replicas, second.rejected, second.excluded) == (
        first.template_engines,
        first.replicas,
        first.rejected,
        first.excluded,
    )


def test_a_node_without_memory_is_tried_again_sooner_where_an_engine_that_served_has_no_other_node() -> None:
    served = (A,)
    pauses = [_pause(("n1",), served), _pause(("n1", "n2"), served), _pause(("n1",), ())]
    assert pauses == [60, 300, 300]


def _pause(nodes: tuple[str, ...], last_good: tuple[ServableEngine, ...]) -> float:
    """Return the seconds until a node that has no memory now is tried again."""
    short = trouble(Trouble.REFUSED_NODE, key="a" * 64).model_copy(update={"may_pass": True})
    engines = {"wanted": (wanted(A, nodes=nodes),), "last_good": last_good}
    (node,) = decide(rollout(**engines, replicas=2, running=runs(A, replicas=2, troubles=(short,)))).excluded
    return (datetime.fromisoformat(str(node.retry_at)) - NOW).total_seconds()


def test_the_status_says_why_no_node_takes_a_replica_and_when_it_is_tried_again() -> None:
    message = decide(CASES["the only node refuses another replica"].state).message
    assert message == (
        "1 of 2 replicas are ready; on node n1: the driver is too old; "
        "it is tried again as soon as the spec or the node changes"
    )
