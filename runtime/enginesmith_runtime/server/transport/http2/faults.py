"""What a client did against RFC 9113, and how much of what it has here ends by it."""

from enginesmith_runtime.server.transport.http2.wire import ErrorCode

__all__ = ["ConnectionFault", "StreamFault"]


class ConnectionFault(Exception):  # noqa: N818 - the RFC's word for this would be taken for Python's ConnectionError
    """The connection must end (section 5.4.1)."""

    def __init__(self, code: ErrorCode, why: str) -> None:
        self.code = code
        self.why = why
        super().__init__(f"{code.name}: {why}")


class StreamFault(Exception):  # noqa: N818 - as its neighbour
    """One stream must end (section 5.4.2)."""

    def __init__(self, stream: int, code: ErrorCode, why: str) -> None:
        self.stream = stream
        self.code = code
        super().__init__(f"stream {stream}: {code.name}: {why}")
