"""The onnxruntime backend. Its engine is the model with all offline optimisations.

Optimising again at every start would take seconds for a large model. Optimisations that depend on the CPU (the layout
of convolutions, which depends on its vector width) are not in the file and happen at load. FP16 and BF16 are emulated
(see `onnx_graphs.emulation`), because otherwise the engine would compute in FP32 in spite of its graph. A provider that
compiles whole subgraphs gets only standard operators, because it does not support ONNX Runtime's fused ones.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from enginesmith_contract.backends import Precision
from enginesmith_contract.errors import BuildError, BuildOutOfMemoryError, EngineRefusedError
from enginesmith_contract.providers import Provider, find_provider
from enginesmith_runtime.engines.interface import BuildJob, BuiltEngine, ProgressSink
from enginesmith_runtime.engines.onnxruntime.engine import (
    MOST_THREADS,
    OnnxRuntimeLoader,
    check_provider,
    is_out_of_memory,
    refuse_bf16,
)
from enginesmith_runtime.engines.onnxruntime.inspect import inspect_model
from enginesmith_runtime.engines.onnxruntime.weights import inline_inner_weights

if TYPE_CHECKING:
    from enginesmith_runtime.onnx_graphs.emulation import Emulation

__all__ = ["OnnxRuntimeBuilder", "create_builder", "create_loader"]

ENGINE_FILE: Final = "model.onnx"
WEIGHTS_FILE: Final = "model.onnx.data"

# A protobuf file is limited to 2 GiB, and folded constants enlarge optimised graphs. So weights are moved out early.
_EXTERNAL_WEIGHTS_FROM_BYTES: Final = 1 << 28

_PHASE: Final = "onnxruntime"

_REFUSED: Final = {
    Precision.BF16: "it has BF16 kernels for few operators, and none for Conv, MatMul and Add",
    Precision.FP8: "its optimised graphs omit a Relu before a conversion to FP8 (ONNX Runtime 1.32)",
}

_UNKNOWN_OPERATOR: Final = ("is not a registered function/op", "No Op registered for")


def create_builder() -> "OnnxRuntimeBuilder":
    """Return the backend's builder."""
    return OnnxRuntimeBuilder()


def create_loader() -> OnnxRuntimeLoader:
    """Return the backend's loader."""
    return OnnxRuntimeLoader()


class OnnxRuntimeBuilder:
    """Writes an optimised model as the engine."""

    backend = OnnxRuntimeLoader.backend
    needs_device = False

    def version(self) -> str:
        """Return ONNX Runtime's version."""
        return OnnxRuntimeLoader().version()

    def build(self, job: BuildJob, progress: ProgressSink) -> BuiltEngine:
        """Optimise the model and write it.

        Raises:
            BuildError: ONNX Runtime has no implementation of a node or refuses the model (the message has its error),
                it does not support the precision of the model, or the model has inputs or outputs in BF16.
        """
        import onnxruntime

        _refuse_precision(job)
        provider = find_provider(job.request.toolchain.provider)
        try:
            check_provider(onnxruntime, provider)
            refuse_bf16((*job.preparation.facts.inputs, *job.preparation.facts.outputs))
        except EngineRefusedError as error:
            raise BuildError(
                error.what, where=error.where, why=error.why, remedy=error.remedy, reason=error.reason
            ) from error
        progress.phase(_PHASE, steps=2)
        # Only a build needs the package onnx.
        from enginesmith_runtime.onnx_graphs.emulation import emulation_of
        from enginesmith_runtime.onnx_graphs.graph import read_graph
        from enginesmith_runtime.onnx_graphs.scatters import losing_scatters, thread_warnings

        emulation = emulation_of(job.model)
        losing = losing_scatters(read_graph(job.model))
        files = _write_optimised(onnxruntime, job, provider, emulation)
        progress.step(_PHASE, 1)
        inspector = inspect_model(onnxruntime, files[0], provider)
        if losing:
            inspector[MOST_THREADS] = 1
        progress.step(_PHASE, 2)
        progress.finish(_PHASE)
        return BuiltEngine(
            files=files,
            inputs=job.preparation.facts.inputs,
            outputs=job.preparation.facts.outputs,
            inspector=inspector,
            notes=(*_notes(emulation), *thread_warnings(losing)),
        )


def _refuse_precision(job: BuildJob) -> None:
    precision = job.preparation.precision.default
    if precision in _REFUSED:
        raise BuildError(
            f"ONNX Runtime does not run {precision.value} models",
            where="spec.precision",
            why=_REFUSED[precision],
            remedy="choose fp32, fp16 or int8, or a target with backend: tensorrt or tensorrt-rtx",
            reason="PrecisionNotAvailable",
        )


def _notes(emulation: "Emulation | None") -> tuple[str, ...]:
    if emulation is None or not emulation.nodes:
        return ()
    names = " and ".join(one.value.upper() for one in emulation.precisions)
    how = "each computes in FP32 and its results are rounded, since ONNX Runtime on a CPU would compute in FP32"
    return (f"arithmetic: emulated {names} (nodes: {emulation.nodes}); {how}",)


def _write_optimised(
    runtime: Any,
    job: BuildJob,
    provider: Provider,
    emulation: "Emulation | None",
) -> tuple[Path, ...]:
    levels = runtime.GraphOptimizationLevel
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = levels.ORT_ENABLE_BASIC if provider.compiles else levels.ORT_ENABLE_EXTENDED
    engine = job.output / ENGINE_FILE
    options.optimized_model_filepath = str(engine)
    if _keeps_weights_outside(job):
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS_FILE)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    try:
        if emulation is None:
            runtime.InferenceSession(str(job.model), options, providers=["CPUExecutionProvider"])
        else:
            emulation.open(runtime, job.model, options)
    except MemoryError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no other common base
        raise _translate(error, job) from error
    weights = job.output / WEIGHTS_FILE
    if weights.exists():
        inline_inner_weights(engine)
    return (engine, weights) if weights.exists() else (engine,)


def _keeps_weights_outside(job: BuildJob) -> bool:
    """Whether the engine's weights are in a separate file.

    If the model's weights are outside its ONNX file, ONNX Runtime would otherwise write references to the model's
    files, which are not part of the engine.
    """
    files = job.preparation.files_for(job.request.toolchain.backend)
    return len(files) > 1 or job.preparation.facts.size_bytes >= _EXTERNAL_WEIGHTS_FROM_BYTES


def _translate(error: Exception, job: BuildJob) -> BuildError:
    said = str(error).strip()
    if is_out_of_memory(said):
        return BuildOutOfMemoryError(
            "ONNX Runtime ran out of memory",
            where=job.model.name,
            why=said,
            remedy="give the build more memory",
        )
    unsupported = type(error).__name__ == "NotImplemented" or any(words in said for words in _UNKNOWN_OPERATOR)
    return BuildError(
        "ONNX Runtime refuses the model",
        where=job.model.name,
        why=said,
        remedy="export the model with operators of the standard ONNX set" if unsupported else "check the model",
        reason="UnsupportedOperators" if unsupported else "ParserRefused",
    )
