"""`spec.serving.batching`, `queue` and `responseCache`: how requests reach an instance, and which need none."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator

from enginesmith_contract.serve_request import (
    MAX_BATCH_SIZE,
    MAX_PREFERRED_SIZES,
    MAX_PRIORITY_LEVELS,
    BatchingOptions,
    QueueOptions,
)
from enginesmith_operator.api.base import ApiModel, Finding, raise_findings
from enginesmith_operator.api.bounds import between_bytes, between_durations
from enginesmith_operator.api.quantities import ByteQuantity, Duration, SpelledSeconds

__all__ = ["BatchingSpec", "QueueSpec", "ResponseCacheSpec"]

_BatchSize = Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE)]
_Level = Annotated[int, Field(ge=1, le=MAX_PRIORITY_LEVELS)]


class BatchingSpec(ApiModel):
    """Settings for dynamic batching, which runs waiting requests as one inference.

    It applies only to models for which the preparation proved that this does not change the answers.

    Attributes:
        enabled: Whether waiting requests run as one inference.
        max_queue_delay_seconds: Time that a request may wait for others while an instance is free. A request that
            arrives while the model is idle does not wait.
        preferred_batch_sizes: Batch sizes that run without further delay. If omitted, a batch runs as soon as no other
            request is likely to arrive within the delay.
        max_batch_size: Largest batch to form. If omitted, as large as the profile allows. A single request may be
            larger.
    """

    enabled: bool = True
    max_queue_delay_seconds: Annotated[Duration, between_durations("0s", "10s")] = Field(
        default=SpelledSeconds(0.0, "0s"), alias="maxQueueDelay"
    )
    preferred_batch_sizes: Annotated[tuple[_BatchSize, ...], Field(max_length=MAX_PREFERRED_SIZES)] = ()
    max_batch_size: _BatchSize | None = None

    @property
    def options(self) -> BatchingOptions | None:
        """Return what the server receives; None if nothing differs from its defaults."""
        options = BatchingOptions(
            enabled=self.enabled,
            max_queue_delay_seconds=float(self.max_queue_delay_seconds),
            preferred_batch_sizes=self.preferred_batch_sizes,
            max_batch_size=self.max_batch_size,
        )
        return None if options == BatchingOptions() else options

    @model_validator(mode="after")
    def _require_effective(self) -> "BatchingSpec":
        raise_findings(self._findings())
        return self

    def _findings(self) -> Iterator[Finding]:
        # The API server writes defaults into the document, so only other values tell what a user wanted.
        set_to = {
            "maxQueueDelay": self.max_queue_delay_seconds > 0,
            "preferredBatchSizes": bool(self.preferred_batch_sizes),
            "maxBatchSize": self.max_batch_size is not None,
        }
        for name, is_set in set_to.items():
            if is_set and not self.enabled:
                yield Finding("it has no effect if enabled is false", path=(name,), hint="remove one of the two")
        most = self.max_batch_size
        for index, size in enumerate(self.preferred_batch_sizes):
            if most is not None and size > most:
                yield Finding(f"it is larger than maxBatchSize {most}", str(most), ("preferredBatchSizes", index))


class QueueSpec(ApiModel):
    """Settings for the requests of a model that wait for an instance.

    Attributes:
        timeout_seconds: Time after which a waiting request is refused. If omitted, there is no limit. A request can
            shorten it with the parameter `timeout`.
        priority_levels: Number of priority levels, of which 1 runs first. If omitted, the request parameter `priority`
            has no effect.
        default_priority_level: Level of requests without the parameter `priority`, or with a level that does not exist.
            If omitted, the last level.
    """

    timeout_seconds: Annotated[Duration, between_durations("1ms", "24h")] | None = Field(default=None, alias="timeout")
    priority_levels: _Level | None = None
    default_priority_level: _Level | None = None

    @property
    def options(self) -> QueueOptions | None:
        """Return what the server receives; None if nothing differs from its defaults."""
        options = QueueOptions(
            timeout_seconds=None if self.timeout_seconds is None else float(self.timeout_seconds),
            priority_levels=self.priority_levels,
            default_priority_level=self.default_priority_level,
        )
        return None if options == QueueOptions() else options

    @model_validator(mode="after")
    def _require_existing_level(self) -> "QueueSpec":
        levels, level = self.priority_levels, self.default_priority_level
        if level is not None and (levels is None or level > levels):
            reason = "it needs priorityLevels" if levels is None else f"there are {levels} levels"
            raise_findings([Finding(reason, str(levels or ""), ("defaultPriorityLevel",))])
        return self


class ResponseCacheSpec(ApiModel):
    """Settings for the response cache, which answers repeated requests without an inference.

    Attributes:
        size_bytes: Memory for outputs in each pod. The least recently used outputs make room for new ones.
    """

    size_bytes: Annotated[ByteQuantity, between_bytes("1Ki", "1Ti")] = Field(alias="size")
