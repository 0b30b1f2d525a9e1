"""A builder that can refit without a GPU: it stands for TensorRT, whose Refitter needs one.

What it "refits" is made by the real ONNX Runtime builder from the job's model, or from another one where the test wants
wrong answers.
"""

from dataclasses import replace
from pathlib import Path

from typing_extensions import override

from enginesmith_contract.errors import BuildError
from enginesmith_runtime.engines.interface import BuildJob, BuiltEngine, ProgressSink
from enginesmith_runtime.engines.onnxruntime.backend import OnnxRuntimeBuilder
from enginesmith_runtime.engines.refitting import RefitBase

__all__ = ["FakeRefittingBuilder"]


class FakeRefittingBuilder(OnnxRuntimeBuilder):
    """Builds for real; `refit` answers like `refitted_model`, or is refused where that is None."""

    def __init__(self, refitted_model: Path | None) -> None:
        self.calls: list[str] = []
        self._refitted_model = refitted_model

    @override
    def build(self, job: BuildJob, progress: ProgressSink) -> BuiltEngine:
        """Build into a folder that a refit has left empty."""
        assert list(job.output.iterdir()) == []
        self.calls.append("build")
        return super().build(job, progress)

    def refit(self, job: BuildJob, base: RefitBase, progress: ProgressSink) -> BuiltEngine:
        """Refuse after leaving a file behind, or make the engine."""
        self.calls.append("refit")
        assert base.plan.read_bytes()
        if self._refitted_model is None:
            (job.output / "half-written").write_bytes(b"half")
            raise BuildError("the engine cannot be refitted", why="weights are missing: w", reason="RefitRefused")
        return super().build(replace(job, model=self._refitted_model), progress)
