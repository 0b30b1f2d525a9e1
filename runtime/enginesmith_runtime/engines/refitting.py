"""Making an engine out of another one that has the same structure and other weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from enginesmith_contract.manifest import Manifest
from enginesmith_runtime.engines.interface import BuildJob, BuiltEngine, ProgressSink

__all__ = ["RefitBase", "RefittingBuilder"]


@dataclass(frozen=True, kw_only=True)
class RefitBase:
    """An engine of the same structure with other weights; `plan` is its first file, on the local disk."""

    manifest: Manifest
    plan: Path


@runtime_checkable
class RefittingBuilder(Protocol):
    """A Builder that can also replace an engine's weights, which takes a fraction of a build."""

    def refit(self, job: BuildJob, base: RefitBase, progress: ProgressSink) -> BuiltEngine:
        """Make the job's engine out of another one's plan.

        Raises:
            enginesmith_contract.errors.BuildError: it cannot be done; a build can.
            enginesmith_contract.errors.CancelledBuildError: the sink said so.
        """
        ...
