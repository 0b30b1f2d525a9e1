"""The development cluster for the tests of what talks to one."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from tests.cluster.access import Cluster
from tests.cluster.conftest import cluster, hardware, images, namespace, no_operator

from enginesmith_operator.cluster.connection import connect
from enginesmith_operator.cluster.transport import Transport

__all__ = ["cluster", "hardware", "images", "namespace", "no_operator", "with_transport"]

Result = TypeVar("Result")


@pytest.fixture
def with_transport(cluster: Cluster) -> Callable[[Callable[[Transport], Awaitable[Any]]], Any]:
    """Run a coroutine function with a transport to the cluster; child processes find it too."""
    os.environ["KUBECONFIG"] = cluster.environment["KUBECONFIG"]

    def run(scenario: Callable[[Transport], Awaitable[Result]]) -> Result:
        async def inside() -> Result:
            async with Transport(await connect()) as transport:
                return await scenario(transport)

        return asyncio.run(inside())

    return run
