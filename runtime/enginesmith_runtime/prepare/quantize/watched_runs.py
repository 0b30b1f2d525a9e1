"""Runs a model and reads inner values of the graph, in groups that fit into memory."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from enginesmith_contract.errors import EnginesmithError
from enginesmith_runtime.onnx_graphs.graph import fresh_name, read_graph, with_outputs
from enginesmith_runtime.prepare.runs.inputs import Array
from enginesmith_runtime.prepare.runs.reference_runs import RunFailedError, failures_translated
from enginesmith_runtime.prepare.runs.shared_weights import detach_weights

__all__ = ["WatchedRuns", "refused_by_model"]

_ErrorT = TypeVar("_ErrorT", bound=EnginesmithError)

_SEVERITY_FATAL: Final = 4
_VALUE_BYTES: Final = 4


class WatchedRuns:
    """A model with inner values that are read in every run.

    A separate session computes the sizes of the values before the first run, and before each run with larger inputs
    than all earlier runs.
    """

    def __init__(self, path: Path, names: Sequence[str], *, memory_bytes: int, threads: int) -> None:
        """Read the model.

        Args:
            path: Path of the ONNX file.
            names: Names of float values or inputs of the main graph.
            memory_bytes: Memory limit of the values of one group in bytes.
            threads: Number of threads of ONNX Runtime inside a node.
        """
        self._model, self._weights = detach_weights(read_graph(path))
        self._folder = path.parent
        self._names = tuple(names)
        weights = {tensor.name for tensor in self._model.graph.initializer}
        self._inputs = {value.name for value in self._model.graph.input} - weights
        self._memory_bytes = memory_bytes
        self._threads = threads
        self._sizes: ort.InferenceSession | None = None
        self._planned_elements = -1
        self._groups: tuple[tuple[str, ...], ...] = ()
        self._sessions: dict[tuple[str, ...], ort.InferenceSession] = {}

    def values(self, inputs: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Run the model and yield name and value of each watched tensor.

        Raises:
            RunFailedError: ONNX Runtime refused or ran out of memory.
        """
        with failures_translated():
            self._plan(inputs)
        for name in self._names:
            if name in self._inputs:
                yield name, inputs[name]
        for group in self._groups:
            with failures_translated():
                arrays = self._sessions[group].run(list(group), dict(inputs))
            # Free each value when it has been read.
            for name in reversed(group):
                yield name, np.asarray(arrays.pop())

    def _plan(self, inputs: Mapping[str, Array]) -> None:
        elements = sum(array.size for array in inputs.values())
        if elements <= self._planned_elements:
            return
        self._planned_elements = elements
        names = [name for name in self._names if name not in self._inputs]
        groups = tuple(_groups(names, self._measure(names, inputs), self._memory_bytes))
        if groups != self._groups:
            self._groups = groups
            self._sessions = {group: self._sessions.get(group) or self._open(self._model, group) for group in groups}

    def _measure(self, names: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, int]:
        """Return the number of elements of each value."""
        if not names:
            return {}
        measured = onnx.ModelProto()
        measured.CopyFrom(self._model)
        taken = {name for node in measured.graph.node for name in (*node.input, *node.output)} | self._inputs
        sizes = [fresh_name("size", taken) for _ in names]
        measured.graph.node.extend(
            helper.make_node("Size", [name], [size]) for name, size in zip(names, sizes, strict=True)
        )
        if self._sizes is None:
            self._sizes = self._open(measured, sizes)
        return dict(zip(names, (int(size) for size in self._sizes.run(sizes, dict(inputs))), strict=True))

    def _open(self, model: onnx.ModelProto, outputs: Sequence[str]) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = _SEVERITY_FATAL
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self._folder))
        options.add_external_initializers(list(self._weights), list(self._weights.values()))
        return ort.InferenceSession(
            with_outputs(model, outputs).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )


def refused_by_model(kind: type[_ErrorT], sample: str, error: RunFailedError) -> _ErrorT:
    """Return the error for a sample that the model does not run on, of the class `kind`."""
    return kind(
        "the model does not run on a sample of the calibration data",
        where=sample,
        why=error.message,
        remedy="give more memory" if error.out_of_memory else "correct the sample or remove it",
        reason="SampleRefusedByModel",
    )


def _groups(names: Sequence[str], elements: Mapping[str, int], memory_bytes: int) -> Iterator[tuple[str, ...]]:
    """Yield names in groups whose values fit into memory. A value that does not fit at all is a separate group."""
    group: list[str] = []
    taken = 0
    for name in names:
        size = elements[name] * _VALUE_BYTES
        if group and taken + size > memory_bytes:
            yield tuple(group)
            group, taken = [], 0
        group.append(name)
        taken += size
    if group:
        yield tuple(group)
