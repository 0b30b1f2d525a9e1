"""`Api`: reads, and the one gate that every write passes.

    apply, create, delete, replace_status ──> _write: lease? ── before_write ── request ── after_write, metric

Writes are server-side applies with one field manager, forced: Enginesmith owns each field that it decides on, even if
another client set it last. A status is replaced whole with the resourceVersion that it was computed from. So invalid
content in it goes away, and nothing newer is overwritten.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from enginesmith_operator.cluster.errors import LeaseLostError, MissingObjectError
from enginesmith_operator.cluster.transport import APPLY, JSON, Json, Transport
from enginesmith_operator.kinds import EVENT, POD, Resource, resource_of

__all__ = ["FIELD_MANAGER", "Api", "Write", "WriteGate", "WriteObserver", "always_open"]

FIELD_MANAGER: Final = "enginesmith"
# A parsed object takes ten times its stored size, and all kinds are listed at once when the process starts.
_PAGE: Final = 100
_LOG_BYTES: Final = 16_384


@dataclass(frozen=True, kw_only=True)
class Write:
    """One write, as gate, metric and observer see it.

    Attributes:
        number: 1 for the first of this process.
        verb: apply, create, delete or status.
    """

    number: int
    verb: str
    kind: str
    namespace: str
    name: str

    def text(self) -> str:
        """Return it as text, for errors."""
        return f"{self.verb} {self.kind} {self.namespace}/{self.name}"


WriteGate = Callable[[], bool]
"""Whether this process may write now."""


class WriteObserver:
    """Sees every write before it is sent and after it was answered; this one does nothing."""

    def before_write(self, write: Write) -> None:
        """`write` is about to be sent."""

    def after_write(self, write: Write, *, succeeded: bool) -> None:
        """`write` was answered, or failed."""


def always_open() -> bool:
    """Let every write through: for a single process that no other replica competes with."""
    return True


class Api:
    """What the controller does to a cluster."""

    def __init__(
        self, transport: Transport, *, gate: WriteGate = always_open, observer: WriteObserver | None = None
    ) -> None:
        self._transport = transport
        self._gate = gate
        self._observer = observer or WriteObserver()
        self._writes = 0

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Json | None:
        """Return an object as the server has it now; None: it is not there.

        Raises:
            enginesmith_operator.cluster.errors.ClusterError: the server cannot say.
        """
        path = resource.path(namespace, name)
        try:
            return await self._transport.request_object("GET", path, where=f"get {resource.kind} {namespace}/{name}")
        except MissingObjectError:
            return None

    async def list_pages(
        self, resource: Resource, *, namespace: str | None = None, labels: str = "", fields: str = "", page: int = _PAGE
    ) -> AsyncIterator[list[Json]]:
        """Give the objects of a kind page by page, without holding more than one.

        Args:
            resource: the kind.
            namespace: of the objects; None: all.
            labels: selector; empty: every object.
            fields: likewise.
            page: objects in an answer.

        Raises:
            enginesmith_operator.cluster.errors.ClusterError: a page could not be had; nothing is known of the rest.
        """
        query = {"limit": str(page)}
        query |= {"labelSelector": labels} if labels else {}
        query |= {"fieldSelector": fields} if fields else {}
        path = resource.path(namespace)
        while True:
            found = await self._transport.request_object("GET", path, where=f"list {resource.kind}", query=query)
            yield list(found.get("items") or ())
            token = (found.get("metadata") or {}).get("continue")
            if not token:
                return
            query["continue"] = token

    async def read_log(self, namespace: str, pod: str, container: str, *, lines: int) -> tuple[str, ...]:
        """Return the last lines of a container's log; none where the container has none (yet).

        Raises:
            enginesmith_operator.cluster.errors.ClusterError: the server cannot say.
        """
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(_LOG_BYTES)}
        where = f"log of {namespace}/{pod}"
        data = await self._transport.request("GET", POD.path(namespace, pod, "log"), where=where, query=query)
        return tuple(data.decode(errors="replace").splitlines()[-lines:])

    async def read_warnings(self, namespace: str, uid: str) -> tuple[Json, ...]:
        """Return the warning events about one object, by its uid.

        Raises:
            enginesmith_operator.cluster.errors.ClusterError: the server cannot say.
        """
        query = {"fieldSelector": f"involvedObject.uid={uid},type=Warning", "limit": str(_PAGE)}
        found = await self._transport.request_object(
            "GET", EVENT.path(namespace), where=f"list {EVENT.kind} {namespace}", query=query
        )
        return tuple(found.get("items") or ())

    async def apply(self, desired: Json) -> Json:
        """Make an object be as `desired` says, fields that it does not name left alone; return the object.

        Raises:
            enginesmith_operator.cluster.errors.ClusterError: the write was refused, stopped or lost.
        """
        resource, namespace, name = _address(desired)
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}

        def send(where: str) -> Awaitable[Json]:
            path = resource.path(namespace, name)
            return self._transport.request_object(
                "PATCH", path, where=where, query=query, body=desired, content_type=APPLY
            )

        return await self._write("apply", resource, namespace, name, send)

    async def create(self, desired: Json) -> Json:
        """Create an object that must not be there.

        Raises:
            enginesmith_operator.cluster.errors.ObjectExistsError: it is there.
            enginesmith_operator.cluster.errors.ClusterError: the write was refused, stopped or lost.
        """
        resource, namespace, name = _address(desired)
        query = {"fieldManager": FIELD_MANAGER}

        def send(where: str) -> Awaitable[Json]:
            return self._transport.request_object(
                "POST", resource.path(namespace), where=where, query=query, body=desired
            )

        return await self._write("create", resource, namespace, name, send)

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Delete one certain object and, by the garbage collector, what it owns; one that is gone is fine.

        Raises:
            enginesmith_operator.cluster.errors.ConflictError: the name belongs to another object by now.
            enginesmith_operator.cluster.errors.ClusterError: the write was refused, stopped or lost.
        """
        body: Json = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }

        def send(where: str) -> Awaitable[Json]:
            return self._transport.request_object("DELETE", resource.path(namespace, name), where=where, body=body)

        try:
            await self._write("delete", resource, namespace, name, send)
        except MissingObjectError:
            return

    async def replace_status(self, owner: Json, status: Mapping[str, Any]) -> Json:
        """Replace the status of `owner`, as it was read, and return the object.

        Raises:
            enginesmith_operator.cluster.errors.ConflictError: the object changed since it was read.
            enginesmith_operator.cluster.errors.ClusterError: the write was refused, stopped or lost.
        """
        resource, namespace, name = _address(owner)
        body = {key: value for key, value in owner.items() if key != "status"} | {"status": dict(status)}
        query = {"fieldManager": FIELD_MANAGER}

        def send(where: str) -> Awaitable[Json]:
            path = resource.path(namespace, name, "status")
            return self._transport.request_object("PUT", path, where=where, query=query, body=body, content_type=JSON)

        return await self._write("status", resource, namespace, name, send)

    async def _write(
        self, verb: str, resource: Resource, namespace: str, name: str, send: Callable[[str], Awaitable[Json]]
    ) -> Json:
        write = Write(number=self._writes + 1, verb=verb, kind=resource.kind, namespace=namespace, name=name)
        if not self._gate():
            raise LeaseLostError("this replica is no longer the leader", where=write.text())
        self._writes += 1
        self._observer.before_write(write)
        succeeded = False
        try:
            answer = await send(write.text())
            succeeded = True
        finally:
            self._observer.after_write(write, succeeded=succeeded)
        return answer


def _address(document: Json) -> tuple[Resource, str, str]:
    metadata = document["metadata"]
    return resource_of(document["kind"]), metadata.get("namespace", ""), metadata["name"]
