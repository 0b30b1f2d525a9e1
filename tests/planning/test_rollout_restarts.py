"""What restarts a server and what never does, which nodes and engines are not tried again, and what a message names."""

from tests.planning.rollout_states import (
    JUST_NOW,
    LONG_AGO,
    ON_L40S,
    STORED_B,
    A,
    B,
    decide,
    letters,
    rollout,
    runs,
    servable,
    trouble,
    wanted,
)

from enginesmith_operator.api.engine_status import ExcludedNode, RejectedEngine, TargetPhase
from enginesmith_operator.planning.rollout import PATIENCE_SECONDS
from enginesmith_operator.planning.rollout_state import (
    EngineState,
    Trouble,
)


def test_a_pod_without_a_free_gpu_names_the_resource_and_the_nodes() -> None:
    first = rollout(wanted=STORED_B, running=runs(B, ready=0, unschedulable_since=LONG_AGO))
    refused = first.model_copy(update={"excluded": (ExcludedNode(name="n1", reason="DriverFloor", message="old"),)})

    assert decide(first).message == "no free nvidia.com/gpu on 2 nodes (n1, n2) for a new replica"
    assert decide(refused).message == "no free nvidia.com/gpu on node n2 for a new replica"


def test_a_product_that_joins_restarts_nothing_until_a_pod_needs_the_place() -> None:
    state = rollout(
        wanted=(wanted(A), wanted(ON_L40S)), last_good=(A,), replicas=2, running=runs(A, ready=2, replicas=2)
    )
    full = runs(A, ready=1, replicas=2, unschedulable_since=LONG_AGO)

    at_rest, in_need = decide(state), decide(state.model_copy(update={"running": full}))

    assert (letters(at_rest.template_engines), at_rest.phase) == ("a", TargetPhase.SERVING)
    assert "NVIDIA-L40S" in at_rest.message
    assert letters(in_need.template_engines) == "ac"


def test_a_product_that_leaves_restarts_nothing() -> None:
    state = rollout(wanted=(wanted(A),), last_good=(A, ON_L40S), running=runs(A, ON_L40S))

    assert letters(decide(state).template_engines) == "ac"


def test_another_spelling_of_a_label_restarts_nothing_until_a_pod_needs_the_place() -> None:
    renamed = servable("a", label="L4")
    state = rollout(wanted=(wanted(renamed),), last_good=(A,), running=runs(A))
    full = runs(A, ready=0, unschedulable_since=LONG_AGO)

    assert decide(state).template_engines == (A,)
    assert decide(state.model_copy(update={"running": full})).template_engines == (renamed,)


def test_a_rejected_engine_is_forgotten_when_its_inputs_change() -> None:
    rejected = (RejectedEngine(key="b" * 64, reason="Tampered", node="n1"),)
    state = rollout(wanted=(wanted(servable("e")),), last_good=(A,), rejected=rejected, running=runs(A))

    decision = decide(state)

    assert decision.rejected == ()
    assert letters(decision.template_engines) == "e"


def test_a_pod_that_fails_before_it_took_an_engine_rejects_none_that_served() -> None:
    new = servable("e", "NVIDIA-L40S")
    crashed = runs(A, new, ready=1, replicas=2, troubles=(trouble(Trouble.CRASHING, key=None),))
    state = rollout(wanted=(wanted(A), wanted(new)), last_good=(A, ON_L40S), replicas=2, running=crashed)

    decision = decide(state)

    assert [one.key[:1] for one in decision.rejected] == ["e"]
    assert letters(decision.template_engines) == "ac"


def test_an_engine_that_served_is_not_rejected_for_a_crash() -> None:
    crashed = runs(A, ready=1, replicas=2, troubles=(trouble(Trouble.CRASHING, key="a" * 64),))

    assert decide(rollout(wanted=(wanted(A),), last_good=(A,), running=crashed)).rejected == ()


def test_a_node_that_refused_is_tried_again_when_its_driver_changed() -> None:
    excluded = (ExcludedNode(name="n1", reason="DriverFloor", message="old", fingerprint="driver 525", key="b" * 64),)
    state = rollout(
        wanted=(wanted(B, nodes=["n1"]),),
        excluded=excluded,
        nodes={"n1": "driver 525"},
        running=runs(B, ready=0, replicas=0),
    )

    assert decide(state).phase is TargetPhase.FAILED
    assert decide(state.model_copy(update={"nodes": {}})).phase is TargetPhase.FAILED
    mended = decide(state.model_copy(update={"nodes": {"n1": "driver 580"}}))
    assert (mended.excluded, mended.replicas, letters(mended.template_engines)) == ((), 1, "b")


def test_an_engine_that_three_nodes_refuse_is_not_tried_on_a_fourth() -> None:
    nodes = ["n1", "n2", "n3", "n4"]
    troubles = [trouble(Trouble.REFUSED_NODE, node) for node in nodes[:3]]
    states = [
        rollout(wanted=(wanted(B, nodes=nodes),), running=runs(B, ready=0, troubles=tuple(troubles[:count])))
        for count in (1, 2, 3)
    ]

    decisions = [decide(state) for state in states]

    assert [decision.replicas for decision in decisions] == [1, 1, 0]
    assert decisions[1].must_avoid == ("n1", "n2")
    assert "3 of its 4 nodes" in decisions[2].message


def test_a_gpu_that_no_engine_is_for_excludes_its_node_for_every_engine() -> None:
    state = rollout(
        wanted=(wanted(A, nodes=["n1"]), wanted(ON_L40S, nodes=["n2"])),
        running=runs(A, ON_L40S, ready=0, troubles=(trouble(Trouble.REFUSED_NODE, "n1", key=None),)),
    )

    decision = decide(state)

    assert letters(decision.template_engines) == "c"
    assert decision.must_avoid == ("n1",)


def test_patience_says_when_to_look_again() -> None:
    waiting = rollout(wanted=(wanted(A, EngineState.QUEUED, waits_since=JUST_NOW),))

    assert decide(waiting).look_again_seconds == PATIENCE_SECONDS - 1
    assert decide(rollout(wanted=(wanted(A),), running=runs(A))).look_again_seconds is None
