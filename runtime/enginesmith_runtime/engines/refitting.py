"""Interface to create an engine from another one with the same structure and other weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from enginesmith_contract.manifest import Manifest
from enginesmith_runtime.engines.interface import BuildJob, BuiltEngine, ProgressSink

__all__ = ["RefitBase", "RefittingBuilder"]


@dataclass(frozen=True, kw_only=True)
class RefitBase:
    """An engine of the same structure with other weights. `plan` is its first file on the local disk."""

    manifest: Manifest
    plan: Path


@runtime_checkable
class RefittingBuilder(Protocol):
    """A Builder that can also replace an engine's weights, which takes a fraction of a build."""

    def refit(self, job: BuildJob, base: RefitBase, progress: ProgressSink) -> BuiltEngine:
        """Create the job's engine from another engine's plan.

        Raises:
            enginesmith_contract.errors.BuildError: The refit is not possible, but a build is.
            enginesmith_contract.errors.CancelledBuildError: `progress` cancelled it.
        """
        ...
