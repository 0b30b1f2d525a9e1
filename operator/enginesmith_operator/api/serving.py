"""`spec.serving` and `spec.rollout`: how an engine is served, and how a new one replaces it."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, model_validator

from enginesmith_contract.serve_request import (
    DEFAULT_MAX_QUEUED,
    DEFAULT_MAX_STREAMS,
    GRPC_MESSAGE_BYTES,
    MAX_QUEUED,
    MAX_STREAMS,
)
from enginesmith_operator.api.base import ApiModel, refuse_unimplemented
from enginesmith_operator.api.bounds import between_bytes, between_durations
from enginesmith_operator.api.quantities import ByteQuantity, Duration, SpelledBytes, SpelledSeconds

__all__ = ["RetentionSpec", "RolloutSpec", "ServingSpec", "WhenFull"]

_MAX_MESSAGE: Final = SpelledBytes(64 << 20, "64Mi")


class ServingSpec(ApiModel):
    """How one pod serves.

    Attributes:
        instances: inferences that run at the same time in one pod.
        drain_delay_seconds: how long a terminating server says NOT_SERVING and still accepts requests.
        grace_period_seconds: how long running requests may take after that.
        max_message_bytes: the largest request or response; less than 2Gi, which is gRPC's own limit.
        max_queued: requests that may wait for an instance, 0 to 4096; the next one is refused at once.
        max_streams: streams of requests that clients may have open in one pod, 1 to 4096, in each front end where there
            are some; the next one is refused. Each takes a thread.
        front_ends: processes of a pod that take requests off the wire for the one with the engine; worth their
            processors where messages have a megabyte and more and the GPU waits for them. 0 to 32; 0: none.
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
    front_ends: Annotated[int, Field(ge=0, le=32)] = 0

    @property
    def changed_max_streams(self) -> int | None:
        """Return the number of streams; None where it is the server's own default, which an older server has too."""
        return None if self.max_streams == DEFAULT_MAX_STREAMS else self.max_streams

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_implemented(cls, value: object) -> object:
        refuse_unimplemented(value, batching="requests are not joined yet")
        return value


class WhenFull(StrEnum):
    """What a build or a rollout does where no matching GPU is free."""

    WAIT = "wait"
    REPLACE = "replace"


class RolloutSpec(ApiModel):
    """How a new engine replaces the one that serves.

    Attributes:
        when_full: `wait` for a free GPU, or `replace`: free the GPU of one serving replica first.
    """

    when_full: WhenFull = WhenFull.WAIT


class RetentionSpec(ApiModel):
    """How long engines that no longer serve stay in the store, for a way back.

    Attributes:
        keep_engines: engines of each target that stay beside the serving one.
        keep_for_seconds: how long they stay at least; omitted: the number alone decides.
    """

    keep_engines: Annotated[int, Field(ge=0, le=100)] = 2
    keep_for_seconds: Annotated[Duration, between_durations("0s", "87600h")] | None = Field(
        default=None, alias="keepFor"
    )
