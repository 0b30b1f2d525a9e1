"""Reads and writes against a real API server: what is refused, what is left alone, what every write passes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from kubernetes.aio.client import Configuration
from typing_extensions import override

from enginesmith_operator.cluster.client import Api, Write, WriteObserver
from enginesmith_operator.cluster.errors import (
    ClusterUnavailableError,
    ConflictError,
    LeaseLostError,
    ObjectExistsError,
    RefusedObjectError,
)
from enginesmith_operator.cluster.transport import Json, Transport
from enginesmith_operator.kinds import CONFIG_MAP, POD, SERVICE

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

WithTransport = Callable[[Callable[[Transport], Awaitable[Any]]], Any]


class _Recorder(WriteObserver):
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, str, str]] = []

    @override
    def before_write(self, write: Write) -> None:
        self.seen.append(("before", write.number, write.verb, write.name))

    @override
    def after_write(self, write: Write, *, succeeded: bool) -> None:
        self.seen.append(("after" if succeeded else "failed", write.number, write.verb, write.name))


def _config_map(namespace: str, data: dict[str, str], **metadata: str | dict[str, str]) -> Json:
    head = {"name": "settings", "namespace": namespace, **metadata}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": head, "data": data}


def test_an_apply_takes_back_a_field_of_ours_and_leaves_a_stranger_s_alone(
    with_transport: WithTransport, namespace: str
) -> None:
    async def scenario(transport: Transport) -> Json:
        api = Api(transport)
        await api.apply(_config_map(namespace, {"ours": "1"}))
        path = CONFIG_MAP.path(namespace, "settings")
        changed = {"data": {"ours": "2", "theirs": "3"}}
        await transport.request("PATCH", path, where="patch", body=changed, content_type="application/merge-patch+json")
        return await api.apply(_config_map(namespace, {"ours": "1"}))

    assert with_transport(scenario)["data"] == {"ours": "1", "theirs": "3"}


def test_a_field_that_is_wanted_no_more_goes_away(with_transport: WithTransport, namespace: str) -> None:
    async def scenario(transport: Transport) -> Json:
        api = Api(transport)
        await api.apply(_config_map(namespace, {"a": "1", "b": "2"}))
        return await api.apply(_config_map(namespace, {"a": "1"}))

    assert with_transport(scenario)["data"] == {"a": "1"}


def test_an_apply_with_the_uid_of_an_object_that_was_replaced_is_a_conflict(
    with_transport: WithTransport, namespace: str
) -> None:
    async def scenario(transport: Transport) -> None:
        api = Api(transport)
        first = await api.apply(_config_map(namespace, {"a": "1"}))
        await api.delete(CONFIG_MAP, namespace, "settings", uid=first["metadata"]["uid"])
        await api.create(_config_map(namespace, {"somebody": "else"}))
        with pytest.raises(ConflictError):
            await api.apply(_config_map(namespace, {"a": "1"}, uid=first["metadata"]["uid"]))

    with_transport(scenario)


def test_a_delete_means_one_certain_object_and_does_not_mind_that_it_is_gone(
    with_transport: WithTransport, namespace: str
) -> None:
    async def scenario(transport: Transport) -> Json | None:
        api = Api(transport)
        made = await api.create(_config_map(namespace, {"a": "1"}))
        with pytest.raises(ObjectExistsError):
            await api.create(_config_map(namespace, {"a": "1"}))
        with pytest.raises(ConflictError):
            await api.delete(CONFIG_MAP, namespace, "settings", uid="00000000-0000-0000-0000-000000000000")
        for _ in range(2):
            await api.delete(CONFIG_MAP, namespace, "settings", uid=made["metadata"]["uid"])
        return await api.get(CONFIG_MAP, namespace, "settings")

    assert with_transport(scenario) is None


def test_an_object_that_the_server_refuses_says_why(with_transport: WithTransport, namespace: str) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": namespace},
        "spec": {"ports": [{"port": 99_999}]},
    }

    async def scenario(transport: Transport) -> None:
        with pytest.raises(RefusedObjectError) as caught:
            await Api(transport).apply(service)
        assert caught.value.where == f"apply Service {namespace}/s"
        assert "spec.ports[0].port" in caught.value.why

    with_transport(scenario)


def test_every_write_passes_the_observer_and_the_gate_and_no_read_does(
    with_transport: WithTransport, namespace: str
) -> None:
    recorder = _Recorder()
    leads = [True]

    async def scenario(transport: Transport) -> None:
        api = Api(transport, gate=lambda: leads[0], observer=recorder)
        made = await api.apply(_config_map(namespace, {"a": "1"}))
        await api.get(CONFIG_MAP, namespace, "settings")
        with pytest.raises(ObjectExistsError):
            await api.create(_config_map(namespace, {}))
        leads[0] = False
        for write in (
            api.apply(made),
            api.create(made),
            api.replace_status(made, {}),
            api.delete(CONFIG_MAP, namespace, "settings", uid=made["metadata"]["uid"]),
        ):
            with pytest.raises(LeaseLostError):
                await write
        assert await api.get(CONFIG_MAP, namespace, "settings") is not None

    with_transport(scenario)
    assert recorder.seen == [
        ("before", 1, "apply", "settings"),
        ("after", 1, "apply", "settings"),
        ("before", 2, "create", "settings"),
        ("failed", 2, "create", "settings"),
    ]


def test_a_status_is_replaced_whole_and_only_from_what_was_read(with_transport: WithTransport, namespace: str) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": namespace},
        "spec": {"ports": [{"port": 80}]},
    }
    condition = {
        "type": "A",
        "status": "True",
        "reason": "R",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }

    async def scenario(transport: Transport) -> Json | None:
        api = Api(transport)
        made = await api.apply(service)
        first = await api.replace_status(made, {"conditions": [condition], "loadBalancer": {}})
        with pytest.raises(ConflictError):
            await api.replace_status(made, {"conditions": []})
        second = await api.replace_status(first, {"conditions": [{**condition, "type": "B"}], "loadBalancer": {}})
        assert second["spec"] == first["spec"]
        return await api.get(SERVICE, namespace, "s")

    found = with_transport(scenario)
    assert [one["type"] for one in found["status"]["conditions"]] == ["B"]


def test_a_listing_comes_in_pages_and_is_filtered_by_the_server(with_transport: WithTransport, namespace: str) -> None:
    async def scenario(transport: Transport) -> list[list[str]]:
        api = Api(transport)
        for number in range(5):
            body = _config_map(namespace, {}, labels={"batch": namespace})
            body["metadata"]["name"] = f"n{number}"
            await api.create(body)
        pages = api.list_pages(CONFIG_MAP, labels=f"batch={namespace}", page=2)
        return [[one["metadata"]["name"] for one in page] async for page in pages]

    assert with_transport(scenario) == [["n0", "n1"], ["n2", "n3"], ["n4"]]


def test_what_is_not_there_is_no_error(with_transport: WithTransport, namespace: str) -> None:
    async def scenario(transport: Transport) -> Json | None:
        return await Api(transport).get(POD, namespace, "nobody")

    assert with_transport(scenario) is None


def test_a_server_that_does_not_answer_is_unavailable() -> None:
    async def scenario() -> None:
        async with Transport(Configuration(host="http://127.0.0.1:1")) as transport:
            with pytest.raises(ClusterUnavailableError) as caught:
                await Api(transport).get(POD, "default", "x")
            assert caught.value.retry

    asyncio.run(scenario())
