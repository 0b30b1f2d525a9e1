"""Section `timingCache`: which edits of a document find their tactics in the timing cache of the engine before them.

Usage of one build or start: python -m benchmarks.gpu.cache_reuse JOB.json; prints what it took as one line of JSON.

Every build is a process of its own with the bare library: what `trt.Builder()` takes is reported apart from the build.
All edits start from the cache of the first build alone, so they do not help each other; the last one has all caches.
"""

import ctypes
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from benchmarks.gpu.documents import Document, Workplace
from onnx import numpy_helper

from enginesmith_runtime.engines.nvinfer.library import TENSORRT_LIBRARY
from enginesmith_runtime.store.open import open_store

__all__ = ["measure_cache_reuse"]

_PROCESS_SECONDS: Final = 240
_LONGEST_SAMPLE: Final = 160
_SAMPLES: Final = 12
_WORKSPACE: Final = 1 << 30
_HUGE_PAGES: Final = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

# Lines of the library's verbose log that tell what was looked up and what was measured.
_COUNTED: Final = (
    "Autotuning format combination",
    "Autotuning Reformat",
    "Timing Runner",
    "Fastest Tactic",
    "Chose Runner Type",
    "Skipping tactic",
    "No valid tactics",
    "cache hit",
    "cache miss",
)
_KEPT: Final = re.compile(
    r"mismatch|uuid|timing cache|compilation cache|generator cache|cache hit|cache miss", re.IGNORECASE
)
_ENTRIES: Final = re.compile(r"(Loaded|Serialized) (\d+) timing cache entries")


@dataclass(frozen=True, kw_only=True)
class _Edit:
    """One variant of the document.

    Attributes:
        batches: min, opt and max.
        caches: names of the builds whose caches it starts from.
        level: added to the optimisation level.
    """

    name: str
    batches: tuple[int, int, int] = (1, 4, 16)
    model: str = "cls"
    precision: str = "fp16"
    caches: tuple[str, ...] = ("cold",)
    level: int = 0


_COLD: Final = _Edit(name="cold", caches=())
_EDITS: Final = (
    _COLD,
    replace(_COLD, name="same", caches=("cold",)),
    _Edit(name="max", batches=(1, 4, 32)),
    _Edit(name="opt", batches=(1, 8, 16)),
    _Edit(name="weights", model="cls-other"),
    _Edit(name="precision", precision="fp32"),
    _Edit(name="batch", batches=(8, 8, 8)),
    _Edit(name="level", level=1),
    _Edit(name="grown", batches=(1, 4, 32), caches=("cold", "max", "opt", "weights", "precision", "batch", "level")),
)
_ELSEWHERE: Final = "elsewhere"
"""An edit that starts from a cache that another GPU of this model made: a file of that name among the models."""

_STARTS: Final[Mapping[str, Mapping[str, str]]] = {
    "plain": {},
    "hugePages": _HUGE_PAGES,
    "inAThread": _HUGE_PAGES,
    "resourceFirst": _HUGE_PAGES,
}


def measure_cache_reuse(
    work: Workplace, *, level: int, budget_seconds: float, wanted: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what starts of the library took, and each build; parts that have no time left say so.

    Args:
        work: with cls.onnx among its models.
        level: optimisation level of the builds.
        budget_seconds: no part starts that would probably end later than this.
        wanted: names of the edits to measure, without the starts; empty: all of both.
    """
    begun = time.monotonic()
    folder = work.root / "timing-caches"
    folder.mkdir(exist_ok=True)
    figures: dict[str, Any] = {"level": level, "starts": {}, "builds": {}}

    def keep(kind: str, name: str, found: dict[str, Any]) -> None:
        figures[kind][name] = found
        print(f"{kind} {name}: {json.dumps(found)[:400]}", flush=True)
        (folder / "figures.json").write_text(json.dumps(figures, indent=1))

    for name, environment in _STARTS.items() if not wanted else ():
        keep("starts", name, _in_a_process({"start": name}, folder / f"start-{name}.json", environment))
    _write_other_weights(work.models)
    longest = 0.0
    for edit in _edits(work, folder, wanted):
        left = budget_seconds - (time.monotonic() - begun)
        if left < longest:
            keep("builds", edit.name, {"failed": f"not run: {left:.0f} s left of {budget_seconds:g} s"})
            continue
        part = time.monotonic()
        try:
            found = _build_edit(work, folder, edit, level)
        except Exception as error:  # noqa: BLE001 - the record says what happened
            found = {"failed": f"{type(error).__name__}: {error}"}
        longest = max(longest, time.monotonic() - part)
        keep("builds", edit.name, found)
    cold = figures["builds"].get("cold", {}).get("buildSeconds")
    for found in figures["builds"].values():
        if cold and found.get("buildSeconds"):
            found["timesFasterThanCold"] = round(cold / found["buildSeconds"], 2)
    return figures


def _edits(work: Workplace, folder: Path, wanted: Sequence[str]) -> list[_Edit]:
    elsewhere = work.models / f"{_ELSEWHERE}.cache"
    edits = [*_EDITS]
    if elsewhere.exists():
        shutil.copyfile(elsewhere, folder / f"from-{_ELSEWHERE}.cache")
        edits.insert(0, replace(_COLD, name=_ELSEWHERE, caches=(f"from-{_ELSEWHERE}",)))
    return [edit for edit in edits if not wanted or edit.name in wanted]


def _write_other_weights(models: Path) -> None:
    model = onnx.load(models / "cls.onnx")
    random = np.random.default_rng(5)
    constants = [node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"]
    for tensor in (*model.graph.initializer, *constants):
        # Single numbers and shapes are part of the model's structure.
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) > 1:
            values = numpy_helper.to_array(tensor)
            changed = values * (1 + 0.01 * random.random(values.shape, np.float32))
            tensor.CopyFrom(numpy_helper.from_array(changed.astype(np.float32), tensor.name))
    onnx.save(model, models / "cls-other.onnx")


def _build_edit(work: Workplace, folder: Path, edit: _Edit, level: int) -> dict[str, Any]:
    shapes = [[batch, 3, 48, 192] for batch in edit.batches]
    caches = [path for name in edit.caches if (path := folder / f"{name}.cache").exists()]
    if edit.caches and not caches:
        caches = [path for path in (folder / f"from-{_ELSEWHERE}.cache",) if path.exists()]
    job = {
        "model": str(_prepared(work, folder, edit)),
        "ranges": shapes,
        "level": level + edit.level,
        "caches": [str(path) for path in caches],
        "cache": str(folder / f"{edit.name}.cache"),
    }
    return _in_a_process(job, folder / f"{edit.name}.json", _HUGE_PAGES)


def _prepared(work: Workplace, folder: Path, edit: _Edit) -> Path:
    """Return the model as the product prepares it; once for all edits that share it."""
    target = folder / f"{edit.model}-{edit.precision}" / "model.onnx"
    if target.exists():
        return target
    batch = (1, 3, 48, 192)
    document = Document(
        name=f"{edit.model}-{edit.precision}-cache",
        model=edit.model,
        tensor="x",
        ranges=(batch, (4, *batch[1:]), (16, *batch[1:])),
        precision=edit.precision,
    )
    preparation = work.prepare(document.engine(work.backend)).preparation
    path = open_store(work.store).get_files(preparation.model, target.parent, private=True)
    return path.rename(target)


def _in_a_process(job: dict[str, Any], file: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    file.write_text(json.dumps(job))
    begun = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu.cache_reuse", str(file)],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PROCESS_SECONDS,
            env={**os.environ, "CUDA_MODULE_LOADING": "LAZY", **environment},
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"stopped after {_PROCESS_SECONDS} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return {"failed": f"exit status {done.returncode}: {done.stderr[-1500:]}"}
    return {**json.loads(lines[-1]), "processSeconds": round(time.perf_counter() - begun, 2)}


def _logger(module: Any) -> Any:  # noqa: ANN401 - the library has no types
    class _Counting(module.ILogger):  # type: ignore[misc]  # the base is known at run time only
        """Counts lines of the verbose log and keeps those about caches."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.lines: Counter[str] = Counter()
            self.entries: dict[str, int] = {}
            self.samples: dict[str, None] = {}

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401 - the library has no types
            self.lines[str(severity).rpartition(".")[2]] += 1
            for fragment in _COUNTED:
                self.lines[fragment] += fragment in message
            found = _ENTRIES.search(message)
            if found:
                self.entries[found[1]] = int(found[2])
            if _KEPT.search(message) and len(self.samples) < _SAMPLES:
                self.samples[message.strip()[:_LONGEST_SAMPLE]] = None

    return _Counting()


def _timed(seconds: dict[str, Any], name: str, step: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the step returns
    begun = time.perf_counter()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    result = step()
    seconds[f"{name}Seconds"] = round(time.perf_counter() - begun, 3)
    if name.startswith("builder"):
        seconds[f"{name}PageFaults"] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return result


def _run_build(job: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    trt = _timed(found, "import", TENSORRT_LIBRARY.load)
    log = _logger(trt)
    builder = _timed(found, "builder", lambda: trt.Builder(log))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    data = _without_names(Path(job["model"]))
    if not _timed(found, "parse", lambda: parser.parse(data)):
        raise RuntimeError(str(parser.get_error(0)))
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE)
    config.builder_optimization_level = job["level"]
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *(tuple(shape) for shape in job["ranges"]))
    config.add_optimization_profile(profile)
    cache = _timed(found, "cacheLoad", lambda: _merged(config, [Path(path).read_bytes() for path in job["caches"]]))
    found["cacheBytesBefore"] = len(bytes(memoryview(cache.serialize())))
    found["entriesBefore"] = log.entries.get("Serialized")
    found["accepted"] = bool(config.set_timing_cache(cache, ignore_mismatch=False))
    plan = _timed(found, "build", lambda: builder.build_serialized_network(network, config))
    if plan is None:
        raise RuntimeError("the builder gave no plan")
    data = _timed(found, "serialize", lambda: bytes(memoryview(config.get_timing_cache().serialize())))
    Path(job["cache"]).write_bytes(data)
    found["cacheBytesAfter"], found["entriesAfter"] = len(data), log.entries.get("Serialized")
    found["planBytes"] = plan.nbytes
    found["lines"], found["samples"] = dict(log.lines), list(log.samples)
    return found


def _without_names(path: Path) -> bytes:
    """Return the model without names of open dimensions, two of which are one in this exporter's models."""
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            axis.ClearField("dim_param")
    return bytes(model.SerializeToString())


def _merged(config: Any, caches: list[bytes]) -> Any:  # noqa: ANN401 - the library has no types
    first, *others = caches or [b""]
    cache = config.create_timing_cache(first)
    for data in others:
        if not cache.combine(config.create_timing_cache(data), ignore_mismatch=False):
            raise RuntimeError("the caches do not combine")
    return cache


def _run_start(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    trt = _timed(found, "import", TENSORRT_LIBRARY.load)
    log = _logger(trt)
    if kind == "resourceFirst":
        name = f"libnvinfer_builder_resource.so.{'.'.join(trt.__version__.split('.')[:3])}"
        _timed(found, "resource", lambda: ctypes.CDLL(name))
    if kind != "inAThread":
        kept = [_timed(found, "builder", lambda: trt.Builder(log)), _timed(found, "builder2", lambda: trt.Builder(log))]
        return {**found, "builders": len(kept), "lines": dict(log.lines), "samples": list(log.samples)}
    _timed(found, "onnxruntimeImport", lambda: __import__("onnxruntime"))
    before = _count_for(0.5, lambda: False)
    thread = threading.Thread(target=lambda: _timed(found, "builder", lambda: trt.Builder(log)))
    thread.start()
    during = _count_for(60.0, lambda: not thread.is_alive())
    thread.join()
    # 1: other Python code runs at full speed while the library starts; 0: it stands still.
    return {**found, "speedOfOtherThreads": round(during / before, 3)}


def _count_for(seconds: float, ended: Callable[[], bool]) -> float:
    """Return turns of a Python loop a second, until the time is over or `ended`."""
    begun, turns = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds and not (turns % 100 == 0 and ended()):
        turns += 1
    return turns / (time.perf_counter() - begun)


def main() -> None:
    """Run one job."""
    job = json.loads(Path(sys.argv[1]).read_text())
    try:
        found = _run_start(job["start"]) if "start" in job else _run_build(job)
    except Exception as error:  # noqa: BLE001 - the record says what happened
        found = {"failed": f"{type(error).__name__}: {error}"}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
