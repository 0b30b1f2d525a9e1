"""A real API server for the tests of what talks to one, and a namespace that goes with each test."""

import asyncio
import os
import subprocess
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from enginesmith_operator.cluster.connection import connect
from enginesmith_operator.cluster.transport import Transport

ROOT = Path(__file__).resolve().parent.parent.parent
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
Result = TypeVar("Result")


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    """Bring up the development cluster, unless it is up, and let this process and its children find it."""
    subprocess.run([ROOT / "hack" / "cluster", "up"], check=True, capture_output=True)
    path = str(_CACHE / "enginesmith-dev" / "cluster" / "kubeconfig")
    os.environ["KUBECONFIG"] = path
    return path


@pytest.fixture
def with_transport(kubeconfig: str) -> Callable[[Callable[[Transport], Awaitable[Any]]], Any]:
    """Run a coroutine function with a transport to the cluster."""
    assert kubeconfig

    def run(scenario: Callable[[Transport], Awaitable[Result]]) -> Result:
        async def inside() -> Result:
            async with Transport(await connect()) as transport:
                return await scenario(transport)

        return asyncio.run(inside())

    return run


@pytest.fixture
def namespace(with_transport: Callable[..., Any]) -> Iterator[str]:
    """Give a namespace that is deleted afterwards."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    path = "/api/v1/namespaces"

    async def create(transport: Transport) -> None:
        await transport.request("POST", path, where="namespace", body=document)

    async def delete(transport: Transport) -> None:
        await transport.request("DELETE", f"{path}/{name}", where="namespace")

    with_transport(create)
    yield name
    with_transport(delete)
