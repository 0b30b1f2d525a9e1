"""The product's engine interface in process, as a worker: data that lies in the interface's own buffer, answers out.

Usage: python -m benchmarks.gpu.engine_loop WORK NAME SHAPE [--option NAME=VALUE] [--instances N]
"""

import argparse
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from benchmarks.gpu.documents import Workplace
from benchmarks.gpu.workers import Turns, serve_turns

from enginesmith_contract.manifest import Manifest
from enginesmith_runtime.engines.interface import Engine, Instance
from enginesmith_runtime.engines.registry import loader

__all__ = ["InstanceLoop", "open_engine", "random_values"]


def open_engine(manifest: Manifest, files: Path, options: Mapping[str, str]) -> Engine:
    """Load as the server does."""
    return loader(manifest.toolchain.backend).load(manifest, files, options)


class InstanceLoop:
    """One instance and one shape; the input lies in the instance's staging memory."""

    def __init__(self, manifest: Manifest, instance: Instance, shape: tuple[int, ...]) -> None:
        (spec,) = manifest.inputs
        self._instance = instance
        self.source = random_values(shape, np.dtype(spec.dtype.numpy))
        self.staging = instance.staging(spec.name, shape)
        np.copyto(self.staging, self.source)
        self._inputs = {spec.name: self.staging}
        self._outputs = tuple(output.name for output in manifest.outputs)

    def took(self, seconds: float) -> list[float]:
        """Return the seconds of each turn."""
        infer, inputs, outputs = self._instance.infer, self._inputs, self._outputs
        clock, took = time.perf_counter, []
        stop = clock() + seconds
        while (begun := clock()) < stop:
            infer(inputs, profile=0, outputs=outputs)
            took.append(clock() - begun)
        return took

    def copy_seconds(self, times: int = 200) -> float:
        """Return the median seconds of the copy into the staging memory."""
        took = []
        for _ in range(times):
            begun = time.perf_counter()
            np.copyto(self.staging, self.source)
            took.append(time.perf_counter() - begun)
        return float(np.median(took))


def random_values(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> np.ndarray:
    """Return values between 0 and 1, or pixels."""
    random = np.random.default_rng(0)
    if dtype == np.uint8:
        return random.integers(0, 256, shape, np.uint8)
    return random.random(shape, np.float32).astype(dtype)


def _together(loops: list[InstanceLoop], seconds: float) -> Turns:
    if len(loops) == 1:
        return Turns.of(loops[0].took(seconds))
    found: list[list[float]] = []
    threads = [threading.Thread(target=lambda one=one: found.append(one.took(seconds))) for one in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = [took for one in found for took in one]
    return Turns(rate=sum(Turns.of(one).rate for one in found), p50=float(np.median(every)))


def main() -> None:
    """Serve turns of one engine's instances."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("name")
    parser.add_argument("shape")
    parser.add_argument("--option", action="append", default=[])
    parser.add_argument("--instances", type=int, default=1)
    arguments = parser.parse_args()
    work = Workplace(root=arguments.work, backend="")
    manifest = work.manifest(arguments.name)
    shape = tuple(int(size) for size in arguments.shape.split("x"))
    options = dict(option.split("=", 1) for option in arguments.option)
    with work.files(manifest) as folder, closing(open_engine(manifest, folder, options)) as engine:
        instances = [engine.open_instance() for _ in range(arguments.instances)]
        loops = [InstanceLoop(manifest, instance, shape) for instance in instances]
        serve_turns(lambda seconds: _together(loops, seconds))
        for instance in instances:
            instance.close()


if __name__ == "__main__":
    main()
