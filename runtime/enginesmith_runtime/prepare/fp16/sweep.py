"""Tries FP16 or BF16 with many kinds of values. Nodes that cause wrong outputs stay in FP32.

Each sample of `sweep_inputs` is run in FP32 and in emulated FP16. If the two differ, `faults` finds the nodes that
cause the difference. Rounding of every FP16 engine is not a fault; it is measured by rounding only the results of
layers. Values for which the FP32 result itself is random are not a fault either.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort

from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.comparison.compare import as_floats, compare, is_exact
from enginesmith_runtime.comparison.output_scales import learn_scales
from enginesmith_runtime.onnx_graphs.graph import read_graph
from enginesmith_runtime.onnx_graphs.narrow import narrow_of
from enginesmith_runtime.prepare.fp16.answer_parts import find_parts
from enginesmith_runtime.prepare.fp16.faults import FaultSearch, with_rounded_layers
from enginesmith_runtime.prepare.fp16.sweep_inputs import Sample, samples
from enginesmith_runtime.prepare.jobs import Sweep, SweepJob
from enginesmith_runtime.prepare.runs.inputs import Array
from enginesmith_runtime.prepare.runs.reference_runs import RunFailedError, Session, open_exact
from enginesmith_runtime.prepare.runs.rounding import with_other_bits

__all__ = ["sweep"]

# Tolerance of FP16. The rounding of BF16 is coarser.
_TOLERANCE: Final = 0.02
_LARGEST_TOLERANCE: Final = 0.1
_OF_REFERENCES: Final = 3.0
_OF_LAYERS: Final = 5.0
_OF_DEEP: Final = 10.0
_MOST_MISMATCHES: Final = 0.1
_SMALL_ANSWERS: Final = 1e-2
_MOST_BYTES: Final = 512 << 20
_NARROWER: Final = "Give the range of {} in verification.inputs where it is smaller, and more computes in FP16"
_TRAINED: Final = (
    "its BatchNormalization was trained with smaller values. Where requests hold such ones, give their range in"
    " verification.inputs"
)
_LOST: Final = "FP16 loses values of {} that are all below {}; where requests hold no larger ones, {}"
_UNUSUAL: Final = "where requests hold such values, give their range in verification.inputs"
_NOT_SEARCHED: Final = "the budget was too small to find the nodes at fault"
_ADDS_UP: Final = "the rounding of its layers adds up to that, in every FP16 engine"


@dataclass(frozen=True, kw_only=True)
class _Run:
    sample: Sample
    outputs: Mapping[str, Array]


@dataclass(frozen=True, kw_only=True)
class _Difference:
    output: str
    size: float
    is_share: bool
    whole: str = ""  # output that contains this part

    @property
    def words(self) -> str:
        output = f"{self.output!r}, a part of output {self.whole!r}," if self.whole else f"output {self.output!r}"
        if math.isinf(self.size):
            return f"{output} in FP16 has NaN or infinity"
        if self.is_share:
            return f"a share of {self.size:.2g} of the whole numbers in {output} differs in FP16"
        return f"{output} in FP16 differs by {self.size:.2g} (max|a-b| / max|b|)"


def sweep(job: SweepJob) -> Sweep:
    """Run every sample. Return nodes to keep, and warnings about differences that stay."""
    return _Sweeper(job).run()


class _Sweeper:
    """The runs of one job."""

    def __init__(self, job: SweepJob) -> None:
        self._job = job
        self._deadline = time.monotonic() + job.seconds
        self._lines: dict[tuple[str, str], list[str]] = {}
        self._lost: dict[str, str] = {}  # by input, the values that FP16 loses
        self._parts = find_parts(read_graph(Path(job.model)), read_graph(Path(job.cast)))
        parts = tuple(TensorSpec(name=name, dtype=DType.FP32, shape=()) for name in self._parts)
        facts = job.feed.facts.model_copy(update={"outputs": (*job.feed.facts.outputs, *parts)})
        self._feed = job.feed.model_copy(update={"facts": facts})
        coarseness = narrow_of(job.precision).coarseness
        self._tolerance = min(
            max(_TOLERANCE * coarseness, _OF_REFERENCES * job.expected), _LARGEST_TOLERANCE * coarseness
        )

    def run(self) -> Sweep:
        """Return the result of all samples."""
        everything = list(samples(Path(self._job.model), self._job.feed, self._job.shapes, self._job.run))
        runs = list(self._references(everything))
        compared = list(self._compare([run for run in runs if run.outputs]))
        left = [run.sample for run in runs if run.outputs][len(compared) :] + everything[len(runs) :]
        lines = [f"within the budget, FP16 was not tried with {', '.join(map(_said, left))}"] if left else []
        keep: dict[str, str] = {}
        wrong = [(run, found) for run, found in compared if found is not None]
        search = FaultSearch(self._job) if wrong else None
        for run, found in wrong:
            if search is None or time.monotonic() > self._deadline:
                self._lines.setdefault((found.words, _NOT_SEARCHED), []).append(_said(run.sample))
                continue
            nodes = self._judge(search, run, found)
            keep |= {name: reason for name, reason in nodes.items() if name not in keep}
        lines += [_LOST.format(name, limit, self._tiny_cure(name)) for name, limit in self._lost.items()]
        lines += [f"{words} with {' or '.join(said)}; {why}" for (words, why), said in self._lines.items()]
        said = narrow_of(self._job.precision).said
        return Sweep(keep=keep, warnings=tuple(map(said, lines)))

    def _references(self, everything: Sequence[Sample]) -> Iterator[_Run]:
        """Yield the FP32 runs for as many samples as time and memory allow."""
        session = self._source
        taken = 0
        for sample in everything:
            if time.monotonic() > self._deadline - self._job.seconds / 2 or taken > _MOST_BYTES:
                return
            try:
                outputs = session.run(self._feed, sample.inputs)
            except (RunFailedError, MemoryError):
                outputs = {}  # the model refuses such values
            taken += sum(array.nbytes for array in (*outputs.values(), *sample.inputs.values()))
            yield _Run(sample=sample, outputs=outputs)

    def _compare(self, runs: Sequence[_Run]) -> Iterator[tuple[_Run, _Difference | None]]:
        session = Session(self._job.cast, emulated=True, threads=self._job.feed.threads, more=tuple(self._parts))
        for run in runs:
            if time.monotonic() > self._deadline:
                return
            yield run, self._difference(session.run(self._feed, run.sample.inputs), run.outputs)

    def _difference(self, actual: Mapping[str, Array], reference: Mapping[str, Array]) -> _Difference | None:
        """Return the output with the largest difference, or None if all are correct."""
        worst: _Difference | None = None
        for spec in self._feed.facts.outputs:
            size, is_share = _measure(actual[spec.name], reference[spec.name], spec.dtype)
            limit = _MOST_MISMATCHES if is_exact(spec.dtype) else self._tolerance
            if size > limit and (worst is None or size > worst.size):
                whole = self._parts.get(spec.name, "")
                worst = _Difference(output=spec.name, size=size, is_share=is_share, whole=whole)
        return worst

    def _judge(self, search: FaultSearch, run: _Run, found: _Difference) -> dict[str, str]:
        """Return the nodes to keep for a sample with different outputs."""
        said = _said(run.sample)
        if self._is_chance(run):
            return {}
        if run.sample.tiny and np.abs(run.outputs[found.output]).max(initial=0) < _SMALL_ANSWERS:
            names = ", ".join(run.sample.names)
            self._lost[names] = max(self._lost.get(names, run.sample.tiny), run.sample.tiny, key=float)
            return {}
        if run.sample.is_rare:
            self._lines.setdefault((found.words, _UNUSUAL), []).append(said)
            return {}
        if search.is_beyond_training(run.sample.inputs):
            self._lines.setdefault((found.words, _TRAINED), []).append(said)
            return {}
        most = _OF_DEEP if search.is_deep else _OF_LAYERS if search.is_last else 0.0
        if most and not math.isinf(found.size) and self._of_layers(run) * most >= found.size:
            self._lines.setdefault((found.words, _ADDS_UP), []).append(said)
            return {}
        known = self._job.feed.values.keys() | self._job.feed.index_bounds.keys()
        cure = "" if known & set(run.sample.names) else f". {_NARROWER.format(', '.join(run.sample.names))}"
        return search.nodes(run.sample.inputs, f"{found.words} with {said}{cure}")

    def _tiny_cure(self, names: str) -> str:
        known = self._job.feed.values.keys() & set(names.split(", "))
        return "only precision fp32 has right answers" if known else "give the range in verification.inputs"

    def _is_chance(self, run: _Run) -> bool:
        """Whether the last bits of the inputs determine the FP32 outputs."""
        random = np.random.default_rng(0)
        moved = {
            name: with_other_bits(array, random) if array.dtype == np.float32 else array
            for name, array in run.sample.inputs.items()
        }
        return self._difference(self._source.run(self._feed, moved), run.outputs) is not None

    @cached_property
    def _source(self) -> Session:
        feed = self._job.feed
        return Session(self._job.model, emulated=feed.emulated, threads=feed.threads, more=tuple(self._parts))

    def _of_layers(self, run: _Run) -> float:
        """Return the difference from rounding only the results of layers."""
        if self._job.feed.emulated:
            return 0.0
        names = [spec.name for spec in self._job.feed.facts.outputs]
        outputs = dict(zip(names, self._rounded.run(names, run.sample.inputs), strict=True))
        sizes = [
            _measure(outputs[spec.name], run.outputs[spec.name], spec.dtype)[0] for spec in self._job.feed.facts.outputs
        ]
        return max((size for size in sizes if not math.isinf(size)), default=0.0)

    @cached_property
    def _rounded(self) -> ort.InferenceSession:
        path = Path(self._job.model)
        rounded = with_rounded_layers(read_graph(path), narrow_of(self._job.precision))
        return open_exact(rounded, path.parent, self._job.feed.threads)


def _measure(actual: Array, reference: Array, dtype: DType) -> tuple[float, bool]:
    """Return the largest difference as a share of the scale, or for integers the share that differs, and True."""
    if dtype is DType.BYTES or not reference.size:
        return 0.0, False
    if is_exact(dtype):
        return float(np.mean(actual != reference)) if actual.shape == reference.shape else math.inf, True
    wanted, found = as_floats(reference, dtype), as_floats(actual, dtype)
    finite = np.isfinite(wanted)
    if not finite.any():
        return 0.0, False
    peak = float(np.abs(wanted[finite]).max())
    factor = 1 / peak if 0 < peak < 1 else 1.0  # compare relative to the size of the outputs
    wanted, found = wanted * factor, found * factor
    parts = compare(found, wanted, DType.FP64, learn_scales([wanted]))
    return max((part.difference, False) if part.mismatches is None else (part.mismatches, True) for part in parts)


def _said(sample: Sample) -> str:
    return f"{', '.join(sample.names)} {sample.words}"
