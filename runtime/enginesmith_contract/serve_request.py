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
"""Size limit of a gRPC message in bytes; a message must be smaller."""

DEFAULT_MAX_QUEUED: Final = 256
DEFAULT_MAX_STREAMS: Final = 512

MAX_QUEUED: Final = 4096
MAX_STREAMS: Final = 4096
"""Upper bound, because each waiting request and each open stream has a thread."""

MAX_BATCH_SIZE: Final = 65536
MAX_PREFERRED_SIZES: Final = 16
MAX_PRIORITY_LEVELS: Final = 64


class BatchingOptions(Record):
    """How requests of several clients are joined into one inference, if the preparation proved that this is safe.

    Attributes:
        max_queue_delay_seconds: Seconds that a request may wait for others while an instance is free. A request to an
            idle model does not wait.
        preferred_batch_sizes: Row counts of batches that run without further delay. Other batches run after the delay.
        max_batch_size: Largest number of rows to join; None for the limit of the profile.
    """

    enabled: bool = True
    max_queue_delay_seconds: float = Field(default=0.0, ge=0.0)
    preferred_batch_sizes: tuple[int, ...] = Field(default=(), max_length=MAX_PREFERRED_SIZES)
    max_batch_size: int | None = Field(default=None, ge=1, le=MAX_BATCH_SIZE)


class QueueOptions(Record):
    """Order of waiting requests, and how long a request may wait.

    Attributes:
        timeout_seconds: Seconds that a request may wait for an instance. The `timeout` of a request can only shorten
            it.
        priority_levels: Number of priority levels; level 1 runs first. If None, the request parameter `priority` is
            ignored.
        default_priority_level: Level of a request without a valid level; None for the last level.
    """

    timeout_seconds: float | None = Field(default=None, gt=0.0)
    priority_levels: int | None = Field(default=None, ge=1, le=MAX_PRIORITY_LEVELS)
    default_priority_level: int | None = Field(default=None, ge=1, le=MAX_PRIORITY_LEVELS)


@unique
class TransportName(StrEnum):
    """Implementation that receives requests: `http2` is Enginesmith's own, `grpcio` is the gRPC library."""

    HTTP2 = "http2"
    GRPCIO = "grpcio"


class ModelOptions(Record):
    """Serving options of a model, which apply to each of its engines.

    Attributes:
        name: Name of the model: metadata.name of the InferenceEngine.
        target: Name of the target, which every response contains.
        instances: Number of inferences that can run at the same time.
        backend_options: Session options of the backend ("intraOpThreads": "2").
        max_queued: Requests that may wait for an instance of this model; None for the server's limit.
        batching: How requests are joined; None to join them without delay.
        queue: Order and timeout of the queue; None for the order of arrival without a timeout.
        response_cache_bytes: Size of the cache of outputs for requests with the same inputs; None for no cache.
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
    """One engine under the model name that clients use."""

    engine_key: str
    store: str


class TlsFiles(Record):
    """PEM files of a server; it reads them again when they change.

    Attributes:
        certificate: Certificate of the server with its intermediate certificates.
        client_ca: Certificate authority that must have signed the clients' certificates; None if clients need none.
        names: Host names that clients use for the server. The certificate must have one of them. If None, names are not
            checked.
    """

    certificate: str
    key: str
    client_ca: str | None = None
    names: tuple[str, ...] | None = None


class ClientLimits(Record):
    """Limits of one client of a server. A client is the owner of a token, or a connection if there are no tokens.

    Attributes:
        max_in_flight: Requests without a response; None for no limit.
        requests_per_second: Requests per second, and the size of a burst, which is at least one; None for no limit.
    """

    max_in_flight: int | None = Field(default=None, ge=1)
    requests_per_second: float | None = Field(default=None, gt=0.0)


class ServerOptions(Record):
    """How one server process listens, limits requests and ends.

    Attributes:
        address: host:port of the inference protocol. With port 0 the server chooses a free port and prints it.
        health_address: host:port of grpc.health.v1 without TLS, for kubelet probes; None to disable it.
        metrics_address: host:port of Prometheus metrics; None to disable it.
        http_address: host:port of the inference protocol over HTTP; None to disable it.
        drain_delay_seconds: Seconds in which a terminating server reports NOT_SERVING and still accepts requests.
        grace_seconds: Seconds that running requests may take after that.
        max_message_bytes: Largest size of one request or response. gRPC allows less than 2 GiB.
        max_queued: Requests of each model that may wait for an instance. The next request gets RESOURCE_EXHAUSTED.
        max_streams: Open streams of requests, per front end if there are front ends; None for 512. The next stream gets
            RESOURCE_EXHAUSTED.
        max_connection_age_seconds: Seconds after which a connection is closed, so that clients spread over new
            replicas; None for no limit.
        shared_memory: Whether clients may register memory that they share with the server. If true, every client that
            reaches the server can read and write everything in /dev/shm that the server can. Set it to false if the
            clients and the server are not on one machine.
        front_ends: Processes that receive requests for the process with the engines. With 0 that process receives them
            itself, which needs least CPU and memory but cannot keep up with large messages and a fast GPU.
        transport: Implementation that receives requests, in this process and in the front ends; None for http2.
        tls: TLS files for the addresses of the protocol, over gRPC and HTTP; None for plaintext.
        tokens: Folder with one file for each client that may call; the file contains its bearer token. If None, every
            client may call.
        client_limits: Limits of each client; None if only the limits for all clients apply.
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
    """Request for one server process."""

    models: tuple[ServedModel, ...]
