"""`spec.serving`, `spec.rollout` and `spec.retention`: how an engine is served, replaced and kept."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from enginesmith_contract.serve_request import (
    DEFAULT_MAX_QUEUED,
    DEFAULT_MAX_STREAMS,
    GRPC_MESSAGE_BYTES,
    MAX_QUEUED,
    MAX_STREAMS,
    TransportName,
)
from enginesmith_operator.api.base import ApiModel
from enginesmith_operator.api.bounds import between_bytes, between_durations
from enginesmith_operator.api.quantities import ByteQuantity, Duration, SpelledBytes, SpelledSeconds
from enginesmith_operator.api.queueing import BatchingSpec, QueueSpec, ResponseCacheSpec
from enginesmith_operator.api.serving_access import AuthSpec, ClientLimitsSpec, TlsSpec

__all__ = ["HttpSpec", "RetentionSpec", "RolloutSpec", "ServingSpec", "WhenFull"]

_MAX_MESSAGE: Final = SpelledBytes(64 << 20, "64Mi")


class HttpSpec(ApiModel):
    """Settings of the Open Inference Protocol over HTTP.

    Attributes:
        enabled: Whether the server offers the protocol over HTTP as well, on port 8000 (named `http`) of its pods and
            Services. If false, it offers gRPC only.
    """

    enabled: bool = False


class TransportChoice(StrEnum):
    """Implementation of gRPC in the server, or `auto`: the server's own choice."""

    AUTO = "auto"
    HTTP2 = "http2"
    GRPCIO = "grpcio"


class ServingSpec(ApiModel):
    """Settings of the server in each pod.

    Attributes:
        instances: Number of inferences that run at the same time in one pod.
        drain_delay_seconds: Time for which a terminating server reports NOT_SERVING and still accepts requests.
        grace_period_seconds: Time that running requests have to finish after the drain delay.
        max_message_bytes: Largest size of a request or a response. gRPC's own limit is 2Gi.
        max_queued: Number of requests that may wait for an instance. Further requests are refused at once.
        max_streams: Number of streams that clients may have open in one pod, or in each of its front ends. Further
            streams are refused. Each open stream needs one thread.
        batching: Settings for dynamic batching, which runs waiting requests as one inference. If omitted, requests that
            wait for an instance are joined without further delay.
        queue: Settings for requests that wait for an instance.
        response_cache: Settings for the response cache, which answers repeated requests without an inference. If
            omitted, every request runs.
        front_ends: Number of processes in one pod that receive requests for the process with the engine. They need CPU
            time of their own and help if messages have 1 MB or more and the GPU waits for them.
        http: Settings of the Open Inference Protocol over HTTP.
        transport: Implementation of gRPC in the server: `http2` is Enginesmith's own, `grpcio` is the Python library of
            the gRPC project. `auto` is `http2`.
        tls: Settings for TLS on the ports for gRPC and HTTP. If omitted, the ports are plaintext. Metrics and kubelet's
            probes have plaintext ports of their own.
        auth: Settings for the authentication of clients by bearer tokens. If omitted, calls need no token.
        client_limits: Limits for each client. A client is the owner of a token, or a connection if calls need no
            token.
    """

    instances: Annotated[int, Field(ge=1, le=64)] = 2
    drain_delay_seconds: Annotated[Duration, between_durations("0s", "1h")] = Field(
        default=SpelledSeconds(5.0, "5s"), alias="drainDelay"
    )
    grace_period_seconds: Annotated[Duration, between_durations("0s", "24h")] = Field(
        default=SpelledSeconds(30.0, "30s"), alias="gracePeriod"
    )
    max_message_bytes: Annotated[ByteQuantity, between_bytes("1", str(GRPC_MESSAGE_BYTES - 1))] = Field(
        default=_MAX_MESSAGE, alias="maxMessageBytes"
    )
    max_queued: Annotated[int, Field(ge=0, le=MAX_QUEUED)] = DEFAULT_MAX_QUEUED
    max_streams: Annotated[int, Field(ge=1, le=MAX_STREAMS)] = DEFAULT_MAX_STREAMS
    batching: BatchingSpec = BatchingSpec()
    queue: QueueSpec = QueueSpec()
    response_cache: ResponseCacheSpec | None = None
    front_ends: Annotated[int, Field(ge=0, le=32)] = 0
    http: HttpSpec = HttpSpec()
    transport: TransportChoice = TransportChoice.AUTO
    tls: TlsSpec | None = None
    auth: AuthSpec | None = None
    client_limits: ClientLimitsSpec | None = None

    @property
    def response_cache_bytes(self) -> int | None:
        """Return the memory for outputs that are kept; None if none are."""
        return None if self.response_cache is None else int(self.response_cache.size_bytes)

    @property
    def changed_max_streams(self) -> int | None:
        """Return the number of streams; None if it is the server's default, which older servers have as well."""
        return None if self.max_streams == DEFAULT_MAX_STREAMS else self.max_streams

    @property
    def chosen_transport(self) -> TransportName | None:
        """Return the transport; None if the server chooses it, which needs no field that older servers lack."""
        return None if self.transport is TransportChoice.AUTO else TransportName(self.transport.value)


class WhenFull(StrEnum):
    """Action of a build or a rollout if no matching GPU is free."""

    WAIT = "wait"
    REPLACE = "replace"


class RolloutSpec(ApiModel):
    """Settings for the replacement of the serving engine by a new one.

    Attributes:
        when_full: Action if no matching GPU is free: `wait` for one, or `replace`, which first frees the GPU of one
            serving replica.
    """

    when_full: WhenFull = WhenFull.WAIT


class RetentionSpec(ApiModel):
    """Number and age of engines to keep in the store after they stop serving, for a rollback.

    Attributes:
        keep_engines: Number of earlier engines to keep for each target, in addition to the serving one.
        keep_for_seconds: Minimum time for which an engine is kept after its build. If omitted, only the number decides.
    """

    keep_engines: Annotated[int, Field(ge=0, le=100)] = 2
    keep_for_seconds: Annotated[Duration, between_durations("0s", "87600h")] | None = Field(
        default=None, alias="keepFor"
    )
