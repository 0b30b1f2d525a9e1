"""JSON over HTTP to the API server through the Kubernetes client's connection handling: no models, nothing decided.

The client's generated methods would parse every object into a tree of models, for thousands of objects that are kept as
a few fields each. What is used of it is what is hard: credentials, their renewal, TLS and the connection pool.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration

from enginesmith_operator.cluster.errors import error_from_response, unreachable_error

__all__ = ["APPLY", "JSON", "Json", "Transport"]

Json = dict[str, Any]

JSON: Final = "application/json"
APPLY: Final = "application/apply-patch+yaml"
_FAILED_FROM: Final = 300
# Shorter than the gap between the end of a leader's right to write and its lease's end (leader.py).
_TIMEOUT_SECONDS: Final = 10.0


class Transport:
    """One pool of connections, of the event loop in which it is first used."""

    def __init__(self, connection: Configuration, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._client = ApiClient(connection)
        self._client.user_agent = "enginesmith-operator"
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)

    async def __aenter__(self) -> Self:
        """Give the transport itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close its connections."""
        await self._client.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        where: str,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = JSON,
    ) -> bytes:
        """Send one request and return the answer's body.

        Raises:
            enginesmith_operator.cluster.errors.ClusterError: the answer is no success, or there is none.
        """
        url = f"{self._client.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": JSON, "Content-Type": content_type, **self._client.default_headers}
        try:
            await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            answer = await self._client.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=self._timeout
            )
            data = await answer.read() or b""
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unreachable_error(error, where=where) from error
        if answer.status >= _FAILED_FROM:
            raise error_from_response(answer.status, data, answer.headers, where=where)
        return bytes(data)

    async def request_object(self, method: str, path: str, *, where: str, **parts: Any) -> Json:  # noqa: ANN401 - `request`'s own keywords
        """Send one request whose answer is an object.

        Raises:
            enginesmith_operator.cluster.errors.ClusterError: the answer is no success, or there is none.
        """
        found = json.loads(await self.request(method, path, where=where, **parts))
        return found if isinstance(found, dict) else {}
