"""The request that a runtime server receives."""

from collections.abc import Mapping
from enum import StrEnum, unique
from typing import Final

from pydantic import Field

from enginesmith_contract.record import Record

__all__ = [
    "DEFAULT_MAX_QUEUED",
    "DEFAULT_MAX_STREAMS",
    "GRPC_MESSAGE_BYTES",
    "MAX_BATCH_SIZE",
    "MAX_PREFERRED_SIZES",
    "MAX_PRIORITY_LEVELS",
    "MAX_QUEUED",
    "MAX_STREAMS",
    "BatchingOptions",
    "ClientLimits",
    "ModelOptions",
    "QueueOptions",
    "ServeRequest",
    "ServedModel",
    "ServerOptions",
    "TlsFiles",
    "TransportName",
]

GRPC_MESSAGE_BYTES: Final = 2 << 30
"""A message of gRPC has less."""

DEFAULT_MAX_QUEUED: Final = 256
DEFAULT_MAX_STREAMS: Final = 512

MAX_QUEUED: Final = 4096
MAX_STREAMS: Final = 4096
"""Each request that waits and each open stream has a thread."""

MAX_BATCH_SIZE: Final = 65536
MAX_PREFERRED_SIZES: Final = 16
MAX_PRIORITY_LEVELS: Final = 64


class BatchingOptions(Record):
    """How requests of several clients are joined into one inference, where the preparation proved that this is safe.

    Attributes:
        max_queue_delay_seconds: how long a request may wait for others while an instance is free. A request that finds
            the model idle never waits.
        preferred_batch_sizes: rows of a batch that runs without further delay; others run when the delay has passed.
        max_batch_size: largest number of rows to join; None: as many as the profile takes.
    """

    enabled: bool = True
    max_queue_delay_seconds: float = Field(default=0.0, ge=0.0)
    preferred_batch_sizes: tuple[int, ...] = Field(default=(), max_length=MAX_PREFERRED_SIZES)
    max_batch_size: int | None = Field(default=None, ge=1, le=MAX_BATCH_SIZE)


class QueueOptions(Record):
    """Which of the waiting requests runs first, and how long one may wait.

    Attributes:
        timeout_seconds: how long a request may wait for an instance; a request's own `timeout` can shorten it only.
        priority_levels: 1 runs first. None: the request parameter `priority` is ignored.
        default_priority_level: of a request without a level, or with one that does not exist; None: the last level.
    """

    timeout_seconds: float | None = Field(default=None, gt=0.0)
    priority_levels: int | None = Field(default=None, ge=1, le=MAX_PRIORITY_LEVELS)
    default_priority_level: int | None = Field(default=None, ge=1, le=MAX_PRIORITY_LEVELS)


@unique
class TransportName(StrEnum):
    """What takes requests off the wire: `http2` is Enginesmith's own code, `grpcio` the gRPC project's library."""

    HTTP2 = "http2"
    GRPCIO = "grpcio"


class ModelOptions(Record):
    """How a model is served, whichever of its engines it is.

    Attributes:
        name: metadata.name of the InferenceEngine.
        target: the target's name; every response carries it.
        instances: inferences that run at once.
        backend_options: session options of the backend ("intraOpThreads": "2").
        max_queued: requests that may wait for an instance of this model; None: as many as the server says.
        batching: how requests are joined; None: without delay.
        queue: order and patience of the queue; None: in the order of arrival, without a timeout.
        response_cache_bytes: of outputs that are kept for requests with the same inputs; None: none are.
    """

    name: str
    version: str = "1"
    target: str
    instances: int = Field(default=1, ge=1, le=64)
    backend_options: Mapping[str, str] = {}
    max_queued: int | None = Field(default=None, ge=0, le=MAX_QUEUED)
    batching: BatchingOptions | None = None
    queue: QueueOptions | None = None
    response_cache_bytes: int | None = Field(default=None, ge=1)


class ServedModel(ModelOptions):
    """One engine under the name that clients use."""

    engine_key: str
    store: str


class TlsFiles(Record):
    """PEM files of a server; it reads them again when they change.

    Attributes:
        certificate: of the server, with what is between it and the root.
        client_ca: the authority that must have signed the clients' certificates; None: clients need none.
        names: that clients use for the server; the certificate must have one of them. None: any name will do.
    """

    certificate: str
    key: str
    client_ca: str | None = None
    names: tuple[str, ...] | None = None


class ClientLimits(Record):
    """What one client may ask of a server: the owner of a token, or a connection where there are no tokens.

    Attributes:
        max_in_flight: requests without an answer; None: no limit.
        requests_per_second: requests in a second, and as many at once, but at least one; None: no limit.
    """

    max_in_flight: int | None = Field(default=None, ge=1)
    requests_per_second: float | None = Field(default=None, gt=0.0)


class ServerOptions(Record):
    """How one server process listens, limits and ends.

    Attributes:
        address: host:port of the protocol; port 0 takes a free one and prints it.
        health_address: plaintext grpc.health.v1 on a port of its own, for kubelet probes; None: none.
        metrics_address: host:port of Prometheus metrics; None: none.
        http_address: host:port of the protocol over HTTP; None: none.
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
        transport: what takes requests off the wire, here and in the front ends; None: http2.
        tls: for the addresses of the protocol, over gRPC and HTTP; None: plaintext.
        tokens: folder with a file for each client that may call, which has its bearer token. None: every client may.
        client_limits: None: none but those of all clients together.
    """

    address: str = "127.0.0.1:8001"
    health_address: str | None = None
    metrics_address: str | None = None
    http_address: str | None = None
    drain_delay_seconds: float = 5.0
    grace_seconds: float = 30.0
    max_message_bytes: int = Field(default=64 << 20, ge=1, lt=GRPC_MESSAGE_BYTES)
    max_queued: int = Field(default=DEFAULT_MAX_QUEUED, ge=0, le=MAX_QUEUED)
    max_streams: int | None = Field(default=None, ge=1, le=MAX_STREAMS)
    max_connection_age_seconds: float | None = None
    shared_memory: bool = False
    front_ends: int = Field(default=0, ge=0, le=32)
    transport: TransportName | None = None
    tls: TlsFiles | None = None
    tokens: str | None = None
    client_limits: ClientLimits | None = None


class ServeRequest(ServerOptions):
    """One server process."""

    models: tuple[ServedModel, ...]
