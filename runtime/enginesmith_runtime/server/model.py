"""One model as it is served: its engine, its instances, its tables and its counters."""

from dataclasses import dataclass, field
from functools import cached_property

from enginesmith_contract.manifest import Manifest
from enginesmith_contract.tensors import TensorSpec
from enginesmith_runtime.engines.interface import Engine
from enginesmith_runtime.server.instance_pool import InstancePool
from enginesmith_runtime.server.profile_choice import ProfileTable
from enginesmith_runtime.server.statistics import ModelStatistics

__all__ = ["LoadedModel"]


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model that answers.

    Attributes:
        metadata: initial metadata of every answer: which engine and which target gave it.
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
    statistics: ModelStatistics = field(default_factory=ModelStatistics)

    @cached_property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what goes before every answer."""
        return (("enginesmith-engine", self.manifest.engine_key), ("enginesmith-target", self.target))

    @cached_property
    def max_batch_size(self) -> int:
        """Return how many inferences one request may carry; 0 where the first dimension was not shown to be a batch."""
        batching = self.manifest.batching
        open_ended = all(spec.shape[:1] == (-1,) for spec in (*self.manifest.inputs, *self.manifest.outputs))
        return batching.max_batch_size if batching.proved and open_ended else 0
