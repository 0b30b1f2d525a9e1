"""Runs models in ONNX Runtime in the child process. The results are the references for engines.

The child limits its own memory (RLIMIT_DATA), so that ONNX Runtime reports "failed to allocate" and the next run
continues. The parent also watches the memory.
"""

import ctypes
import os
import re
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from enginesmith_contract.tensors import DType
from enginesmith_contract.text import one_line
from enginesmith_runtime.local_files.cpus import count_usable_cpus
from enginesmith_runtime.onnx_graphs.emulation import emulate
from enginesmith_runtime.onnx_graphs.graph import read_graph
from enginesmith_runtime.onnx_graphs.integer_kernels import has_integer_kernels
from enginesmith_runtime.onnx_graphs.integer_sums import add_in_32_bits
from enginesmith_runtime.prepare.jobs import Change, EventKind, Feed, ProbeJob, RunJob
from enginesmith_runtime.prepare.runs.inputs import FLOATS, Array, as_floats, fill_inputs
from enginesmith_runtime.prepare.runs.probe_changes import changes
from enginesmith_runtime.prepare.worker_events import Emit

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = [
    "RUN_FAILURES",
    "SAME_RELATIVE",
    "RunFailedError",
    "Session",
    "bound_memory",
    "difference_of",
    "exact_options",
    "failures_translated",
    "is_same",
    "open_exact",
    "open_session",
    "probe",
    "run_all",
    "run_session",
    "save_run",
]

RUN_FAILURES: Final = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
    ValueError,
)
_MEMORY_WORDS: Final = ("bad_alloc", "bad allocation", "failed to allocate memory", "out of memory", "cannot allocate")
_SEVERITY_FATAL: Final = 4
_BFLOAT16: Final = 16  # TensorProto.BFLOAT16, without importing onnx
_PROBE_SECONDS: Final = 15.0
# Kernels that split work by size add in another order. Mixed rows cause much larger differences.
SAME_RELATIVE: Final = 1e-3
_MESSAGE_LENGTH: Final = 300
_NODE: Final = re.compile(r"while running (?P<op>\w+) node\. Name:'(?P<name>[^']*)'")
# Text before the reason: file and line of a kernel, its signature, and the failed condition.
_BEFORE_REASON: Final = re.compile(r"^.*?Status Message: (?:\S+/onnxruntime/\S+:\d+ (?:.*? was false\. )?)?")


class RunFailedError(Exception):
    """A run failed with an error of ONNX Runtime. `out_of_memory` is True if memory was missing."""

    def __init__(self, message: str, *, out_of_memory: bool = False) -> None:
        self.message = message
        self.out_of_memory = out_of_memory
        super().__init__(message)


class Session:
    """One ONNX model in ONNX Runtime on the CPU, configured for exact results and low memory use and not for speed."""

    def __init__(self, model: str, *, emulated: bool = False, threads: int = 0, more: Sequence[str] = ()) -> None:
        """Open the model at a path. `more`: inner values that become outputs. For the others see `Feed`."""
        with failures_translated():
            if more:
                self._session = _open_with(Path(model), more, emulated=emulated, threads=threads)
                return
            graph = read_graph(Path(model))
            options = exact_options(threads, has_integers=has_integer_kernels(graph))
            emulation = emulate(graph) if emulated else None
            self._session = (
                ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
                if emulation is None
                else emulation.open(ort, Path(model), options)
            )

    def run(self, feed: Feed, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once. Return the outputs by name, BF16 as raw uint16 bits.

        Raises:
            RunFailedError: ONNX Runtime refused or ran out of memory.
        """
        names = [spec.name for spec in feed.facts.outputs]
        with failures_translated():
            arrays = run_session(self._session, names, feed, inputs)
            return dict(zip(names, arrays, strict=True))


@contextmanager
def failures_translated() -> Iterator[None]:
    """Translate errors of ONNX Runtime in the body to a `RunFailedError`."""
    try:
        yield
    except RUN_FAILURES as error:
        raise _failed(error) from error
    except MemoryError as error:
        raise RunFailedError("no memory", out_of_memory=True) from error


def exact_options(threads: int = 0, *, has_integers: bool = False) -> ort.SessionOptions:
    """Return options for a session that computes exactly the graph, and keeps no second copy of the weights.

    Args:
        threads: inside a node; 0: one for each CPU of this process.
        has_integers: whether the graph has operators that compute in 8 bits, whose sums the optimizer makes exact.
    """
    options = ort.SessionOptions()
    # The default counts the machine's cores. If this process has fewer, the threads would wait for each other.
    usable = count_usable_cpus()
    options.intra_op_num_threads = threads or (usable if usable < (os.cpu_count() or 1) else 0)
    options.log_severity_level = _SEVERITY_FATAL
    # Disable folding and packing, because they copy the weights and each shape is run only once.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if has_integers:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        add_in_32_bits(options)
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    return options


def open_exact(
    model: onnx.ModelProto, folder: Path, threads: int = 0, weights: Mapping[str, ort.OrtValue] | None = None
) -> ort.InferenceSession:
    """Return a session with `exact_options` of a model in memory.

    Args:
        model: Model without external weights.
        folder: Folder of the files with external weights.
        threads: Number of threads inside a node.
        weights: Weights that were detached from the model; see `detach_weights`.
    """
    options = exact_options(threads)
    if weights:
        options.add_external_initializers(list(weights), list(weights.values()))
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _open_with(path: Path, more: Sequence[str], *, emulated: bool, threads: int) -> ort.InferenceSession:
    model = read_graph(path)
    emulation = emulate(model) if emulated else None
    model = emulation.model if emulation else model
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in more)
    return open_exact(model, path.parent, threads)


def run_session(
    session: ort.InferenceSession, names: Sequence[str], feed: Feed, inputs: Mapping[str, Array]
) -> list[Array]:
    """Return the named outputs of a session, BF16 as raw uint16 bits."""
    dtypes = {spec.dtype for spec in (*feed.facts.inputs, *feed.facts.outputs)}
    # OrtValues support BF16, which numpy does not have. They do not support strings, which plain arrays do.
    if DType.BF16 not in dtypes:
        return [np.asarray(array) for array in session.run(list(names), dict(inputs))]
    values = {spec.name: _as_ort(inputs[spec.name], spec.dtype) for spec in feed.facts.inputs}
    return [_as_numpy(value) for value in session.run_with_ort_values(list(names), values)]


def run_all(job: RunJob, emit: Emit) -> None:
    """Run every entry of the job, and emit the result of each."""
    bound_memory(job.memory_bytes)
    session = open_session(job.model, job.feed, emit)
    if session is None:
        return
    for run, shapes in job.runs.items():
        emit(EventKind.STARTED, {"run": run})
        began = time.monotonic()
        try:
            inputs = fill_inputs(job.feed.at(job.given.get(run, {})), shapes, run)
            outputs = session.run(job.feed, inputs)
            seconds = time.monotonic() - began
            size = 0 if job.folder is None else save_run(Path(job.folder) / f"{run}.npz", inputs, outputs)
            nan: list[JsonValue] = [*_nan_outputs(job.feed, outputs)]
        except RunFailedError as error:
            kind = EventKind.OUT_OF_MEMORY if error.out_of_memory else EventKind.REFUSED
            emit(kind, {"run": run, "message": error.message})
        except MemoryError:
            emit(EventKind.OUT_OF_MEMORY, {"run": run, "message": "no memory"})
        else:
            made: JsonValue = {name: list(array.shape) for name, array in outputs.items()}
            said: dict[str, JsonValue] = {
                "run": run,
                "seconds": seconds,
                "bytes": size,
                "answer": _answer_bytes(outputs),
            }
            emit(EventKind.RAN, {**said, "shapes": made, "nan": nan})
            if run == next(iter(job.runs)) and job.repeats:
                _repeat(job, session, inputs, outputs, emit)


def _answer_bytes(outputs: Mapping[str, Array]) -> int:
    """Return the size of a response with all outputs. Each text has a length of 4 bytes before it."""
    return sum(
        sum(4 + len(str(text).encode()) for text in array.ravel().tolist()) if array.dtype == object else array.nbytes
        for array in outputs.values()
    )


def probe(job: ProbeJob, emit: Emit) -> None:
    """Change one input's values, then one open dimension at a time, until the model runs. Null if nothing helps.

    Values come first, because if other values work at the same shape, the shape is not the cause.
    """
    bound_memory(job.memory_bytes)
    session = open_session(job.model, job.feed, emit)
    deadline = time.monotonic() + _PROBE_SECONDS
    found: Change | None = None
    for change, feed, shapes in changes(job):
        if session is None or time.monotonic() > deadline:
            break
        try:
            session.run(feed, fill_inputs(feed, shapes, job.run))
        except (RunFailedError, MemoryError):
            continue
        found = change
        break
    emit(EventKind.RESULT, None if found is None else found.model_dump(mode="json"))


def is_same(one: Array, other: Array, tolerance: float = SAME_RELATIVE) -> bool:
    """Whether two arrays of one shape are equal: floats within a share of the largest value, others exactly."""
    return difference_of(one, other) <= tolerance


def difference_of(one: Array, other: Array) -> float:
    """Return the largest difference of two arrays of one shape as a share of the largest value of `other`.

    The result is infinity if values other than finite floats differ.
    """
    if not np.issubdtype(one.dtype, np.floating):
        return 0.0 if np.array_equal(one, other) else np.inf
    a, b = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return np.inf
    scale = float(np.max(np.abs(b[finite]), initial=0.0))
    difference = float(np.max(np.abs(a[finite] - b[finite]), initial=0.0))
    return difference and (difference / scale if scale else np.inf)


def bound_memory(extra_bytes: int) -> None:
    """Limit the private memory of this process to `extra_bytes` more than it has now."""
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux: only the parent watches the memory
        return
    lines = status.read_text(encoding="ascii").splitlines()
    now = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (now + extra_bytes, now + extra_bytes))


def open_session(model: str, feed: Feed, emit: Emit) -> Session | None:
    """Return the model's session. If it does not load, emit an event and return None."""
    try:
        return Session(model, emulated=feed.emulated, threads=feed.threads)
    except RunFailedError as error:
        kind = EventKind.OUT_OF_MEMORY if error.out_of_memory else EventKind.NOT_LOADED
        emit(kind, {"run": "", "message": error.message})
        return None


def save_run(path: Path, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> int:
    """Write inputs and outputs of a run. Return the size of the file in bytes."""
    arrays = {f"input:{name}": _storable(array) for name, array in inputs.items()}
    arrays |= {f"output:{name}": _storable(array) for name, array in outputs.items()}
    np.savez(path, allow_pickle=False, **arrays)
    return path.stat().st_size


def _storable(array: Array) -> Array:
    """Convert strings to UTF-8 bytes of fixed width, because an .npz file without pickles can be read safely."""
    if array.dtype != object:
        return array
    return np.char.encode(array.astype(np.str_), "utf-8")


def _repeat(
    job: RunJob, session: Session, inputs: Mapping[str, Array], before: Mapping[str, Array], emit: Emit
) -> None:
    """Run again with the same inputs, and emit whether an output differs. A failed run emits nothing."""
    for _ in range(job.repeats):
        try:
            again = session.run(job.feed, inputs)
        except (RunFailedError, MemoryError):
            return
        for name, array in again.items():
            if array.shape != before[name].shape or not is_same(array, before[name]):
                emit(EventKind.VARIED, {"output": name, "runs": job.repeats + 1})
                return
    emit(EventKind.VARIED, {"output": "", "runs": job.repeats + 1})


def _nan_outputs(feed: Feed, outputs: Mapping[str, Array]) -> list[str]:
    """Return the outputs that have values of which none is a number."""
    floats = {spec.name: spec.dtype for spec in feed.facts.outputs if spec.dtype in FLOATS}
    return [
        name
        for name, dtype in floats.items()
        if outputs[name].size and bool(np.isnan(as_floats(outputs[name], dtype)).all())
    ]


def _as_ort(array: Array, dtype: DType) -> ort.OrtValue:
    if dtype is DType.BF16:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"))


def _as_numpy(value: ort.OrtValue) -> Array:
    if value.element_type() != _BFLOAT16:
        return np.asarray(value.numpy())
    shape = value.shape()
    # There is no numpy type, so `numpy()` does not work. Copy the bits from their address.
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(np.uint16).itemsize
    return np.frombuffer(ctypes.string_at(value.data_ptr(), size), dtype=np.uint16).reshape(shape)


def _failed(error: Exception) -> RunFailedError:
    words = one_line(str(error))
    return RunFailedError(_shortened(words), out_of_memory=any(word in words.lower() for word in _MEMORY_WORDS))


def _shortened(words: str) -> str:
    """Keep only the node and the reason, and remove ONNX Runtime's error classes, C++ paths and signatures."""
    node = _NODE.search(words)
    rest = words.split(" : ", maxsplit=3)[-1] if words.startswith("[ONNXRuntimeError]") else words
    rest = _BEFORE_REASON.sub("", rest)
    if node:
        rest = f"{node['op']} node {node['name']!r}: {rest}"
    return rest if len(rest) <= _MESSAGE_LENGTH else f"{rest[: _MESSAGE_LENGTH - 3]}..."
