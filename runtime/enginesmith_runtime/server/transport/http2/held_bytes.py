"""The bytes that a connection has in this process: requests until they are answered, answers until they are sent."""

from typing import TYPE_CHECKING

from enginesmith_runtime.server.errors import Code, ProtocolError

if TYPE_CHECKING:
    from enginesmith_runtime.server.transport.http2.service import Service

__all__ = ["HeldBytes"]


class HeldBytes:
    """Counts for one connection and for all; see `Bounds.held_bytes`."""

    __slots__ = ("_count", "_service")

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._count = 0

    @property
    def too_many(self) -> bool:
        """Whether this connection, or all of them, hold so many that no call should begin."""
        most = self._service.most_held
        return self._count > most // 2 or self._service.held > most

    def add(self, count: int) -> None:
        """Count bytes."""
        self._count += count
        service = self._service
        service.held += count
        service.highest = max(service.highest, service.held)

    def add_request(self, count: int) -> None:
        """Count bytes of a request.

        Raises:
            ProtocolError: RESOURCE_EXHAUSTED; there are too many.
        """
        self.add(count)
        if self.too_many:
            raise self.refuse()

    def remove(self, count: int) -> None:
        """Count bytes that are gone."""
        self._count -= count
        self._service.held -= count

    def refuse(self) -> ProtocolError:
        """Return what a call is answered with where there are too many."""
        return ProtocolError(
            Code.RESOURCE_EXHAUSTED,
            f"requests and answers of more than {self._service.most_held // 2} bytes wait; try again later or on "
            "another replica",
        )
