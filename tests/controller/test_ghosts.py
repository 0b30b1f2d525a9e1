"""Objects that go in the moment between the operator's first listing and its watches, of which neither tells."""

import asyncio
from pathlib import Path
from typing import Any

import kopf
import pytest
import yaml
from tests.cluster.access import Cluster

from enginesmith_operator.controller.process import run
from enginesmith_operator.controller.shared.cache import Address, ObjectCache
from enginesmith_operator.controller.shared.settings import load_settings

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("no_operator")]

_SECONDS = 300


def _service(namespace: str, name: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": "enginesmith"}
    spec = {"selector": labels, "ports": [{"port": 1, "protocol": "TCP", "targetPort": 1}]}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _lease_of_another(namespace: str) -> dict[str, Any]:
    """With it the operator only looks on."""
    spec = {"holderIdentity": "another", "leaseDurationSeconds": 3600}
    metadata = {"name": "enginesmith-operator", "namespace": namespace}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def test_what_goes_before_the_watches_begin_is_forgotten_soon(
    cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.define_kinds()
    cluster.apply(_lease_of_another(namespace), _service(namespace, "stays"), _service(namespace, "goes"))
    monkeypatch.setenv("KUBECONFIG", cluster.environment["KUBECONFIG"])
    config = tmp_path / "operator.yaml"
    config.write_text(yaml.safe_dump({"healthPort": 0, "resync": "1h"}))
    stays, goes = (Address("Service", namespace, name) for name in ("stays", "goes"))
    caches: list[ObjectCache] = []
    were_there: list[bool] = []
    watch = kopf.operator

    def remember(*, indexed_labels: tuple[str, ...]) -> ObjectCache:
        caches.append(ObjectCache(indexed_labels=indexed_labels))
        return caches[-1]

    async def watch_late(**options: Any) -> None:
        were_there.append(caches[0].find(goes) is not None)
        await asyncio.to_thread(cluster.kubectl, "-n", namespace, "delete", "service", "goes", "--wait=true")
        await watch(**options)

    monkeypatch.setattr(run, "ObjectCache", remember)
    monkeypatch.setattr(kopf, "operator", watch_late)

    async def scenario() -> None:
        process = run.Process(namespace=namespace, identity="onlooker")
        operator = asyncio.create_task(run.run_operator(load_settings(config), process))
        try:
            async with asyncio.timeout(_SECONDS):
                while not were_there or caches[0].find(goes) is not None:
                    assert not operator.done(), operator.result()
                    await asyncio.sleep(0.2)
        finally:
            operator.cancel()
            await asyncio.gather(operator, return_exceptions=True)

    asyncio.run(scenario())

    assert were_there == [True]
    assert caches[0].find(stays) is not None
