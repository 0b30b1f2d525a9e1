"""An exception that no code expected: a condition and an event of the object, once, with an id that the log has."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.cluster.access import Cluster
from tests.controller.engine_world import EngineWorld

from enginesmith_operator.api.engine_build import EngineBuildStatus
from enginesmith_operator.api.engine_status import EngineStatus
from enginesmith_operator.cluster.client import Api
from enginesmith_operator.cluster.transport import Json, Transport
from enginesmith_operator.controller.process.faults import Fault, fault_of, status_with_fault
from enginesmith_operator.controller.process.reconciler import Reconciler
from enginesmith_operator.controller.shared.cache import Address, ObjectCache
from enginesmith_operator.controller.shared.conditions import find_condition
from enginesmith_operator.controller.shared.metrics import Metrics
from enginesmith_operator.controller.shared.settings import OperatorSettings
from enginesmith_operator.controller.shared.status_document import status_document
from enginesmith_operator.controller.watch.intake import Intake
from enginesmith_operator.controller.watch.nodes import NodeMemory
from enginesmith_operator.controller.watch.queue import WorkQueue
from enginesmith_operator.kinds import INFERENCE_ENGINE

WithTransport = Callable[[Callable[[Transport], Awaitable[Any]]], Any]
CATALOG = Address("ConfigMap", "operators", "toolchains")


def _caught(text: str) -> Fault:
    with pytest.raises(ZeroDivisionError) as caught:
        raise ZeroDivisionError(text)
    return fault_of(caught.value)


def test_one_fault_has_one_id_and_one_sentence_whatever_its_values_were() -> None:
    first, second = _caught("1/0"), _caught("2/0")

    assert first == second
    assert "ZeroDivisionError" in first.message
    assert "test_faults.py:" in first.message
    assert first.id in first.message


def test_another_exception_has_another_id() -> None:
    assert fault_of(ValueError("a")).id != fault_of(KeyError("a")).id


@pytest.mark.parametrize("before", [EngineStatus(), EngineBuildStatus()], ids=["engine", "build"])
def test_a_fault_is_a_condition_and_the_same_fault_changes_nothing(before: EngineStatus | EngineBuildStatus) -> None:
    world = EngineWorld()
    fault = _caught("1/0")

    first = status_with_fault(before, fault, generation=1, now=world.now)
    world.wait(60)
    second = status_with_fault(first, fault, generation=1, now=world.now)

    behind = [("UpToDate", "False", "InternalError")] if isinstance(before, EngineStatus) else []
    assert [(one.type, one.status.value, one.reason) for one in first.conditions] == [
        ("Ready", "False", "InternalError"),
        *behind,
        ("InternalError", "True", "InternalError"),
    ]
    assert {one.message for one in first.conditions} == {fault.message}
    assert second == first


def test_a_pass_that_succeeds_takes_the_fault_out_of_the_status() -> None:
    world = EngineWorld()
    failed = status_with_fault(EngineStatus(), _caught("1/0"), generation=1, now=world.now)
    world.engine["status"] = status_document(failed)

    after = world.settle().status

    assert find_condition(after.conditions, "InternalError") is None
    ready = find_condition(after.conditions, "Ready")
    assert ready is not None
    assert ready.reason != "InternalError"


def _failing_reconciler(transport: Transport, document: Json) -> tuple[Reconciler, ObjectCache]:
    """Return a reconciler whose settings are none, so that every pass over the object fails."""
    cache = ObjectCache(indexed_labels=())
    cache.put(document)
    settings = OperatorSettings()
    nodes = NodeMemory(settings.labels.merged(), grace_seconds=1.0, clock=lambda: 0.0)
    queue: WorkQueue[Address] = WorkQueue(clock=asyncio.get_running_loop().time)
    intake = Intake(cache, nodes, CATALOG, lambda key, hurry: queue.add(key, hurry=hurry))
    reconciler = Reconciler(
        api=Api(transport),
        cache=cache,
        nodes=nodes,
        intake=intake,
        queue=queue,
        metrics=Metrics(),
        settings=settings.model_copy(update={"node_classes": None}),
        catalog=CATALOG,
    )
    return reconciler, cache


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("no_operator")
def test_a_pass_that_fails_is_told_in_the_object_once_and_the_log_has_its_id(
    with_transport: WithTransport, cluster: Cluster, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.define_kinds()
    head = {"apiVersion": "enginesmith.io/v1alpha1", "kind": "InferenceEngine"}
    spec = {"model": {"uri": "s3://models/a.onnx"}}
    cluster.apply(head | {"metadata": {"name": "a", "namespace": namespace}, "spec": spec})
    key = Address("InferenceEngine", namespace, "a")

    async def scenario(transport: Transport) -> tuple[Json, Json]:
        found = await Api(transport).get(INFERENCE_ENGINE, namespace, "a")
        assert found is not None
        reconciler, cache = _failing_reconciler(transport, found)
        with caplog.at_level(logging.ERROR):
            await reconciler.reconcile(key, 0.0)
            told = cache.find(key)
            await reconciler.reconcile(key, 0.0)
        again = await Api(transport).get(INFERENCE_ENGINE, namespace, "a")
        assert told is not None
        assert again is not None
        return told.document(), again

    first, again = with_transport(scenario)

    conditions = {one["type"]: one for one in first["status"]["conditions"]}
    message = conditions["InternalError"]["message"]
    digest = message.partition("(id ")[2].partition(")")[0]
    assert conditions["Ready"]["reason"] == "InternalError"
    assert [digest in record.getMessage() for record in caplog.records] == [True, True]
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    events = cluster.get("events", "-n", namespace)["items"]
    assert [(one["reason"], one["type"]) for one in events] == [("InternalError", "Warning")], json.dumps(events)
    assert digest in events[0]["message"]
