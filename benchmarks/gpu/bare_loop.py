"""The limit: the least loop around TensorRT that there can be, by hand, for one plan and one shape.

Usage: python -m benchmarks.gpu.bare_loop WORK NAME SHAPE [--no-graph] [--no-copies] [--plan FILE]; a worker (see
workers.py).

Pinned memory is filled once; a turn is the copy to the device, the inference and the copy back, captured as one CUDA
graph, and the wait for it. Nothing is checked, chosen or counted. With `--no-copies` a turn is the inference alone, on
random values that lie on the device. `--plan` runs another plan with the inputs and outputs of the engine NAME.
"""

import argparse
import ctypes
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.gpu.documents import Workplace
from benchmarks.gpu.engine_loop import random_values
from benchmarks.gpu.workers import Turns, serve_turns

from enginesmith_contract.manifest import Manifest
from enginesmith_runtime.engines.nvinfer.library import TENSORRT_LIBRARY

__all__ = ["BareLoop"]


def _checked(result: tuple[Any, ...]) -> Any:  # noqa: ANN401 - the library has no types
    if int(result[0]) != 0:
        raise RuntimeError(f"CUDA: {result[0]}")
    return result[1] if len(result) > 1 else None


class BareLoop:
    """One plan, one shape, one stream."""

    def __init__(
        self, manifest: Manifest, plan: Path, shape: tuple[int, ...], *, graph: bool, copies: bool = True
    ) -> None:
        from cuda.bindings import runtime  # noqa: PLC0415 - only where there is a GPU

        trt = TENSORRT_LIBRARY.load()

        self._runtime = runtime
        _checked(runtime.cudaSetDevice(0))
        _checked(runtime.cudaFree(0))
        log = trt.Logger(trt.Logger.ERROR)
        self._library = trt.Runtime(log)
        self._engine = self._library.deserialize_cuda_engine(plan.read_bytes())
        self._context = self._engine.create_execution_context()
        self._stream = _checked(runtime.cudaStreamCreateWithFlags(1))  # cudaStreamNonBlocking
        (spec,) = manifest.inputs
        self._context.set_input_shape(spec.name, shape)
        self._copies_in: list[tuple[Any, ...]] = []
        self._copies_out: list[tuple[Any, ...]] = []
        self.output_bytes = 0
        self._bind(spec.name, np.dtype(spec.dtype.numpy), shape, self._copies_in)
        for output in manifest.outputs:
            found = tuple(self._context.get_tensor_shape(output.name))
            self.output_bytes += self._bind(output.name, np.dtype(output.dtype.numpy), found, self._copies_out)
        self._enqueue()
        _checked(runtime.cudaStreamSynchronize(self._stream))
        if not copies:
            self._copies_in, self._copies_out = [], []
        self._graph = self._capture() if graph else None

    def _bind(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], copies: list[Any]) -> int:
        size = int(np.prod(shape)) * dtype.itemsize
        device = _checked(self._runtime.cudaMalloc(size))
        host = _checked(self._runtime.cudaMallocHost(size))
        if copies is self._copies_in:
            values = random_values(shape, dtype).tobytes()
            ctypes.memmove(int(host), values, size)
        self._context.set_tensor_address(name, int(device))
        copies.append((int(device), int(host), size))
        return size

    def _enqueue(self) -> None:
        kind, stream = self._runtime.cudaMemcpyKind, self._stream
        for device, host, size in self._copies_in:
            _checked(self._runtime.cudaMemcpyAsync(device, host, size, kind.cudaMemcpyHostToDevice, stream))
        if not self._context.execute_async_v3(int(stream)):
            raise RuntimeError("TensorRT did not enqueue")
        for device, host, size in self._copies_out:
            _checked(self._runtime.cudaMemcpyAsync(host, device, size, kind.cudaMemcpyDeviceToHost, stream))

    def _capture(self) -> Any:  # noqa: ANN401 - the library has no types
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _checked(self._runtime.cudaStreamBeginCapture(self._stream, mode))
        self._enqueue()
        graph = _checked(self._runtime.cudaStreamEndCapture(self._stream))
        return _checked(self._runtime.cudaGraphInstantiate(graph, 0))

    def turns(self, seconds: float) -> Turns:
        """Run for a while, one turn at a time."""
        launch, wait = self._runtime.cudaGraphLaunch, self._runtime.cudaStreamSynchronize
        graph, stream, enqueue = self._graph, self._stream, self._enqueue
        clock, took = time.perf_counter, []
        stop = clock() + seconds
        while (begun := clock()) < stop:
            if graph is None:
                enqueue()
            else:
                launch(graph, stream)
            wait(stream)
            took.append(clock() - begun)
        return Turns.of(took)


def main() -> None:
    """Serve turns of one loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("name")
    parser.add_argument("shape")
    parser.add_argument("--no-graph", action="store_true")
    parser.add_argument("--no-copies", action="store_true")
    parser.add_argument("--plan", type=Path)
    arguments = parser.parse_args()
    work = Workplace(root=arguments.work, backend="tensorrt")
    manifest = work.manifest(arguments.name)
    shape = tuple(int(size) for size in arguments.shape.split("x"))
    with work.files(manifest) as folder:
        plan = arguments.plan or folder / manifest.files[0].path
        graph, copies = not arguments.no_graph, not arguments.no_copies
        loop = BareLoop(manifest, plan, shape, graph=graph, copies=copies)
    serve_turns(loop.turns)


if __name__ == "__main__":
    main()
