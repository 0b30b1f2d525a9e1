"""The request that a runtime server receives."""

from collections.abc import Mapping
from typing import Final

from pydantic import Field

from enginesmith_contract.record import Record

__all__ = [
    "DEFAULT_MAX_QUEUED",
    "DEFAULT_MAX_STREAMS",
    "GRPC_MESSAGE_BYTES",
    "MAX_QUEUED",
    "MAX_STREAMS",
    "ModelOptions",
    "ServeRequest",
    "ServedModel",
    "ServerOptions",
]

GRPC_MESSAGE_BYTES: Final = 2 << 30
"""A message of gRPC has less."""

DEFAULT_MAX_QUEUED: Final = 256
DEFAULT_MAX_STREAMS: Final = 512

MAX_QUEUED: Final = 4096
MAX_STREAMS: Final = 4096
"""Each request that waits and each open stream has a thread."""


class ModelOptions(Record):
    """How a model is served, whichever of its engines it is.

    Attributes:
        name: metadata.name of the InferenceEngine.
        target: the target's name; every response carries it.
        instances: inferences that run at once.
        backend_options: session options of the backend ("intraOpThreads": "2").
        max_queued: requests that may wait for an instance of this model; None: as many as the server says.
    """

    name: str
    version: str = "1"
    target: str
    instances: int = Field(default=1, ge=1, le=64)
    backend_options: Mapping[str, str] = {}
    max_queued: int | None = Field(default=None, ge=0, le=MAX_QUEUED)


class ServedModel(ModelOptions):
    """One engine under the name that clients use."""

    engine_key: str
    store: str


class ServerOptions(Record):
    """How one server process listens, limits and ends.

    Attributes:
        address: host:port of the protocol; port 0 takes a free one and prints it.
        health_address: plaintext grpc.health.v1 on a port of its own, for kubelet probes; None: none.
        metrics_address: host:port of Prometheus metrics; None: none.
        drain_delay_seconds: how long a terminating server says NOT_SERVING and still accepts.
        grace_seconds: how long running requests may take after that.
        max_message_bytes: of one request or response; gRPC carries less than 2 GiB.
        max_queued: requests of each model that may wait for an instance; the next one gets RESOURCE_EXHAUSTED.
        max_streams: streams of requests that may be open, in each front end where there are some; None: 512. The next
            one gets RESOURCE_EXHAUSTED.
        max_connection_age_seconds: so that clients spread over new replicas; None: no limit.
        shared_memory: whether clients may register memory that they share with the server. If true, every client that
            reaches the server can read and write what the server can of /dev/shm. Set it to false where the clients and
            the server are not on one machine.
        front_ends: processes that take requests off the wire for the one that holds the engines. 0: it does so itself,
            which takes least of processor and memory; with large messages and a fast GPU it cannot keep up.
    """

    address: str = "127.0.0.1:8001"
    health_address: str | None = None
    metrics_address: str | None = None
    drain_delay_seconds: float = 5.0
    grace_seconds: float = 30.0
    max_message_bytes: int = Field(default=64 << 20, ge=1, lt=GRPC_MESSAGE_BYTES)
    max_queued: int = Field(default=DEFAULT_MAX_QUEUED, ge=0, le=MAX_QUEUED)
    max_streams: int | None = Field(default=None, ge=1, le=MAX_STREAMS)
    max_connection_age_seconds: float | None = None
    shared_memory: bool = False
    front_ends: int = Field(default=0, ge=0, le=32)


class ServeRequest(ServerOptions):
    """One server process."""

    models: tuple[ServedModel, ...]
