"""Loads a plan after checks that the library does not make.

The library returns None for most errors, aborts without a driver, and accepts a plan of another GPU with a warning. So
the loader checks the version matrix first, then the driver, and calls the library last.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginesmith_contract.backends import Backend
from enginesmith_contract.environment import NODE_PRODUCT
from enginesmith_contract.errors import EngineRefusedError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.matrix.portability import VERSION_COMPATIBLE_FLAG
from enginesmith_runtime.engines.cuda.driver import require_driver
from enginesmith_runtime.engines.cuda.faults import device_failed, is_sticky
from enginesmith_runtime.engines.device import detect_devices, host_hardware
from enginesmith_runtime.engines.nvinfer.description import refuse_unless_described
from enginesmith_runtime.engines.nvinfer.library import NvInferLibrary
from enginesmith_runtime.engines.nvinfer.messages import Translation, create_logger, translate
from enginesmith_runtime.engines.nvinfer.options import ExecutionOptions, read_options
from enginesmith_runtime.engines.nvinfer.plugins import PLUGIN_FOLDER, load_plugins
from enginesmith_runtime.engines.occupancy import describe_occupancy
from enginesmith_runtime.engines.refusal import find_cuda_device, refuse_mislabelled, refuse_unless_fits

if TYPE_CHECKING:
    from enginesmith_runtime.engines.cuda.device import Gpu
    from enginesmith_runtime.engines.nvinfer.execution import NvInferEngine

__all__ = ["NvInferLoader"]


class NvInferLoader:
    """Loads plans of one library."""

    backend: Backend

    def __init__(self, library: NvInferLibrary) -> None:
        self.backend = library.backend
        self._library = library

    def version(self) -> str:
        """Return the full installed version."""
        return self._library.version(EngineRefusedError)

    def load(
        self, manifest: Manifest, files: Path, options: Mapping[str, str], *, instances: int = 1
    ) -> "NvInferEngine":
        """Deserialise the plan on the first visible GPU.

        Raises:
            EngineRefusedError: The engine does not fit this machine, the node has a wrong label, the library refuses
                the engine, or the device has not enough memory (`OutOfMemory`).
            DeviceFailedError: The device failed.
            SpecError: An option is unknown or has an invalid value.
        """
        del instances  # instances have their own streams and buffers, and share no threads
        execution = read_options(options)
        devices = detect_devices()
        device = next(iter(devices), host_hardware())
        refuse_mislabelled(os.environ.get(NODE_PRODUCT), device)
        refuse_unless_fits(manifest, device, self.version())
        require_driver(EngineRefusedError)
        module = self._library.load(EngineRefusedError)
        # This import needs CUDA's Python bindings, which cannot be imported without a driver.
        from enginesmith_runtime.engines.cuda.device import open_device

        gpu = open_device()
        try:
            refuse_unless_fits(manifest, find_cuda_device(*gpu.identity, devices), self.version())
            return self._deserialise(manifest, files, execution, module, gpu)
        except BaseException:
            gpu.release()
            raise

    def _deserialise(
        self,
        manifest: Manifest,
        files: Path,
        execution: ExecutionOptions,
        module: Any,
        gpu: "Gpu",
    ) -> "NvInferEngine":
        from enginesmith_runtime.engines.nvinfer.execution import NvInferEngine

        plugins = [files / file.path for file in manifest.files if file.path.startswith(f"{PLUGIN_FOLDER}/")]
        with gpu.current():
            free = gpu.free_bytes()
            log = create_logger(module)
            load_plugins(module, log, plugins, EngineRefusedError, digests=manifest.key_inputs.plugins)
            runtime = module.Runtime(log)
            plan = (files / manifest.files[0].path).read_bytes()
            _check_validity(module, runtime, plan, log)
            # A version-compatible plan contains host code. The digest in the manifest guarantees its origin.
            if manifest.key_inputs.flags.get(VERSION_COMPATIBLE_FLAG) == "true":
                runtime.engine_host_code_allowed = True
            engine = runtime.deserialize_cuda_engine(plan)
            if engine is None:
                raise _refused(manifest, log, gpu)
            refuse_unless_described(manifest, engine)
            _allow_weight_streaming(engine, execution.weight_streaming_budget)
            return NvInferEngine(
                manifest=manifest,
                module=module,
                runtime=runtime,
                engine=engine,
                log=log,
                gpu=gpu,
                options=execution,
                # This is an estimate, because other processes on the GPU may allocate or free memory meanwhile.
                weights_bytes=max(free - gpu.free_bytes(), 0),
            )


def _check_validity(module: Any, runtime: Any, plan: bytes, log: Any) -> None:
    """Check the plan with TensorRT for RTX. TensorRT has no such function."""
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, diagnostics = runtime.get_engine_validity(plan)
    if validity != module.EngineValidity.INVALID:
        return
    found = [
        name
        for name, member in module.EngineInvalidityDiagnostics.__members__.items()
        if int(diagnostics) & int(member)
    ]
    raise EngineRefusedError(
        "the library reports that the engine cannot run here",
        why=", ".join((*found, *log.errors)),
        remedy="build the engine for this GPU with the installed version",
        reason="EngineInvalid",
    )


def _refused(manifest: Manifest, log: Any, gpu: "Gpu") -> EngineRefusedError:
    where = f"engine {manifest.engine_key[:12]}"
    code = int(gpu.bindings.cuCtxSynchronize()[0])
    if is_sticky(code):
        return device_failed(code, doing="while the engine was loaded", where=where, said=tuple(log.errors))
    known = translate(log.errors, Translation("EngineUnreadable", "build the engine again with the installed version"))
    occupied = describe_occupancy() if known.reason == "OutOfMemory" else ""
    said = [*dict.fromkeys(log.errors)] or ["it gave no reason"]
    return EngineRefusedError(
        "the library refuses the engine",
        where=where,
        why="\n".join((*said, *([occupied] if occupied else []))),
        remedy="use a GPU with more free memory" if known.reason == "OutOfMemory" else known.remedy,
        reason=known.reason,
    )


def _allow_weight_streaming(engine: Any, budget: int | None) -> None:
    """Set the number of weight bytes that stay on the device. It must be set before the first context is created."""
    streamable = getattr(engine, "streamable_weights_size", 0)
    if streamable <= 0:
        return
    advised = engine.get_weight_streaming_automatic_budget()
    engine.weight_streaming_budget_v2 = advised if budget is None else min(budget, streamable)
