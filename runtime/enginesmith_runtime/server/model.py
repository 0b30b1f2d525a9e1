"""A loaded model: its engine, its instances, its tables and its counters."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from enginesmith_contract.manifest import Manifest
from enginesmith_contract.serve_request import BatchingOptions, QueueOptions
from enginesmith_contract.tensors import TensorSpec
from enginesmith_runtime.engines.interface import Engine
from enginesmith_runtime.server.instance_pool import InstancePool
from enginesmith_runtime.server.pace import Pace
from enginesmith_runtime.server.profile_choice import ProfileTable
from enginesmith_runtime.server.response_cache import ResponseCache
from enginesmith_runtime.server.statistics import ModelStatistics

__all__ = ["LoadedModel"]

_FEWEST_JOINED_ROWS: Final = 2

_KEPT_PACES: Final = 512

_CONTROL_FLOW: Final = frozenset({"If", "Loop", "Scan"})


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model that is loaded and ready.

    Attributes:
        metadata: Initial metadata of every response: the engine and the target that produced it.
        batching: How requests are joined.
        cache: Cache of outputs; None if every request runs.
        queue: Order and timeout of the queue.
    """

    name: str
    version: str
    target: str
    manifest: Manifest
    engine: Engine
    profiles: ProfileTable
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    pool: InstancePool
    batching: BatchingOptions
    queue: QueueOptions
    cache: ResponseCache | None
    statistics: ModelStatistics = field(default_factory=ModelStatistics)
    _paces: dict[Hashable, Pace] = field(default_factory=dict)

    @cached_property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the initial metadata of every response."""
        return (("enginesmith-engine", self.manifest.engine_key), ("enginesmith-target", self.target))

    @cached_property
    def max_batch_size(self) -> int:
        """Return the largest batch of one request, or 0 if the first dimension is not proved to be a batch."""
        batching = self.manifest.batching
        open_ended = all(spec.shape[:1] == (-1,) for spec in (*self.manifest.inputs, *self.manifest.outputs))
        return batching.max_batch_size if batching.proved and open_ended else 0

    @cached_property
    def why_not_joined(self) -> str:
        """Return the reason why requests are not joined into one inference, as a clause, or "" if they are."""
        if not self.batching.enabled:
            return "serving.batching.enabled is false"
        if not self.manifest.batching.proved:
            return f"the preparation did not prove it: {self.manifest.batching.reason or 'no reason is stored'}"
        if not self.max_batch_size:
            return "an input or an output has a fixed first dimension"
        if self.profiles.value_inputs:
            return f"the values of input '{self.profiles.value_inputs[0]}' are sizes"
        if self.most_joined_rows < _FEWEST_JOINED_ROWS:
            return "a batch has one row at most"
        return ""

    @cached_property
    def most_joined_rows(self) -> int:
        """Return the number of rows of the largest batch. A profile may allow fewer."""
        return min(self.max_batch_size, self.batching.max_batch_size or self.max_batch_size)

    def pace(self, form: Hashable) -> Pace:
        """Return the run times of requests of one form, such as those with the same input shapes."""
        if self._has_control_flow:
            # The run time depends on the values, so a run does not predict the next one.
            return Pace()
        if len(self._paces) >= _KEPT_PACES:
            self._paces.clear()
        return self._paces.setdefault(form, Pace())

    @cached_property
    def _has_control_flow(self) -> bool:
        operators = self.manifest.inspector.get("operators")
        return isinstance(operators, dict) and not _CONTROL_FLOW.isdisjoint(operators)

    def priority(self, wanted: int) -> int:
        """Return the priority level of a request. A lower level runs first.

        Args:
            wanted: Level in the request; 0 if it has none.
        """
        levels = self.queue.priority_levels
        if levels is None:
            return 0
        return wanted if 0 < wanted <= levels else self.queue.default_priority_level or levels
