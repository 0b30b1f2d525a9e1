"""`spec.serving`, `spec.rollout` and `spec.retention`: how an engine is served, replaced and kept."""

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
    """Settings of the server in each pod.

    Attributes:
        instances: Number of inferences that run at the same time in one pod.
        drain_delay_seconds: Time for which a terminating server reports NOT_SERVING and still accepts requests.
        grace_period_seconds: Time that running requests have to finish after the drain delay.
        max_message_bytes: Largest size of a request or a response. gRPC's own limit is 2Gi.
        max_queued: Number of requests that may wait for an instance. Further requests are refused at once.
        max_streams: Number of streams that clients may have open in one pod, or in each of its front ends. Further
            streams are refused. Each open stream needs one thread.
        front_ends: Number of processes in one pod that receive requests for the process with the engine. They need CPU
            time of their own and help if messages have 1 MB or more and the GPU waits for them.
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
        """Return the number of streams; None if it is the server's default, which older servers have as well."""
        return None if self.max_streams == DEFAULT_MAX_STREAMS else self.max_streams

    @model_validator(mode="before")
    @classmethod
    def _reject_unimplemented(cls, value: object) -> object:
        refuse_unimplemented(value, batching="requests are not joined yet")
        return value


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
