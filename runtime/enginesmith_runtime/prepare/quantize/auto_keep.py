"""`precision.autoKeep`: searches for nodes that must not be quantised so that decoded answers are those of FP32.

The search uses samples of the calibration. Held-out samples judge the result, so the search cannot fit them. Nodes that
are not quantised compute in FP32 here: the loss of FP16 is small relative to that of INT8, and its emulation takes
three times as long.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from enginesmith_contract.auto_keep import AutoKeepResult, KeepSearch
from enginesmith_contract.backends import Precision
from enginesmith_contract.tensors import TensorSpec
from enginesmith_contract.verification import DEFAULT_AGREEMENT, OutputGate
from enginesmith_runtime.comparison.agreement import open_meters
from enginesmith_runtime.comparison.compare import find_unlike
from enginesmith_runtime.comparison.decoding import Decoding, count_answers
from enginesmith_runtime.onnx_graphs.graph import read_graph
from enginesmith_runtime.prepare.quantize import onnxruntime_placement, tensorrt_placement
from enginesmith_runtime.prepare.quantize.histograms import read_histograms
from enginesmith_runtime.prepare.quantize.jobs import AutoKeepJob
from enginesmith_runtime.prepare.quantize.keep_search import Trial, by_damage_per_byte, search
from enginesmith_runtime.prepare.quantize.samples import open_data
from enginesmith_runtime.prepare.quantize.sensitivity import Candidates, rank
from enginesmith_runtime.prepare.quantize.write import kept_nodes, ranges_of
from enginesmith_runtime.prepare.runs.inputs import Array
from enginesmith_runtime.prepare.runs.reference_runs import (
    RunFailedError,
    Session,
    open_exact,
    run_session,
    save_run,
)

__all__ = ["find_nodes_to_keep"]

_RANKED: Final = 8  # samples
_JUDGED: Final = 256
_DECODED: Final = 64
_MOST_BYTES: Final = 512 << 20
_TRIALS: Final = 20
# Ends of phases as shares of the time.
_REFERENCES: Final = 0.05
_RANKING: Final = 0.4
_TENSORRT: Final = 0.75
_NEVER: Final = 1 << 40  # number of wrong answers for NaN, infinity or another shape

_Place = Callable[[frozenset[str]], onnx.ModelProto]


class _Clock:
    """The time of a search in shares of its timeout, which is also its progress."""

    def __init__(self, seconds: float, tick: Callable[[float], None]) -> None:
        self._began = time.monotonic()
        self._seconds = seconds
        self._tick = tick

    def is_over(self, share: float) -> bool:
        """Whether this share of the time is over."""
        return time.monotonic() - self._began > share * self._seconds

    def say(self, begin: float, end: float, done: float) -> None:
        """Report the completed fraction of a part."""
        self._tick(begin + (end - begin) * min(done, 1.0))


def find_nodes_to_keep(job: AutoKeepJob, tick: Callable[[float], None]) -> AutoKeepResult:
    """Search for the nodes that are not quantised.

    Args:
        job: The job.
        tick: Function that receives the completed share of the search.

    Raises:
        enginesmith_contract.errors.EnginesmithError: An error of `write_quantized` or `open_samples`.
    """
    clock = _Clock(job.bounds.timeout_seconds, tick)
    normal = read_graph(Path(job.model))
    named = kept_nodes(read_graph(Path(job.source)).graph, job.policy.keep, job.sources)
    paths = _references(job, clock)
    tensorrt, onnxruntime = _placements(job, normal, named)
    ranking = by_damage_per_byte(
        rank(
            Candidates(normal.graph, named),
            [_read(path) for path in paths[:_RANKED]],
            tensorrt,
            weights=Path(job.model).parent,
            feed=job.feed,
            is_over=lambda: clock.is_over(_RANKING),
            tick=lambda done: clock.say(_REFERENCES, _RANKING, done),
        )
    )
    judge = _Judge(job, paths)

    def searched(place: _Place, begin: float, end: float) -> KeepSearch:
        trials = count()

        def measure(kept: frozenset[str]) -> Trial | None:
            clock.say(begin, end, next(trials) / _TRIALS)
            return judge.measure(place(kept), lambda: clock.is_over(end))

        return search(ranking, job.bounds, measure)

    return AutoKeepResult(
        tensorrt=searched(tensorrt, _RANKING, _TENSORRT if onnxruntime else 1.0),
        onnxruntime=searched(onnxruntime, _TENSORRT, 1.0) if onnxruntime else None,
        samples=len(paths),
        weight_bytes=sum(one.size_bytes for one in ranking),
        ranking=ranking,
    )


def _placements(job: AutoKeepJob, normal: onnx.ModelProto, named: Mapping[str, str]) -> tuple[_Place, _Place | None]:
    """Return functions that quantise all nodes except the named and the kept ones, for TensorRT and ONNX Runtime."""
    calibration, kind = job.policy.calibration, job.policy.default
    if calibration is None:
        raise ValueError(job.policy)
    folder = Path(job.model).parent
    histograms = read_histograms(Path(job.histograms).read_bytes())
    watched = tensorrt_placement.tensors_to_watch(normal, named)
    ranges = ranges_of(watched, histograms, calibration, kind)

    def for_tensorrt(kept: frozenset[str]) -> onnx.ModelProto:
        return tensorrt_placement.place(normal, ranges, kept=kept | named.keys(), kind=kind, weights=folder)

    if kind is not Precision.INT8:
        return for_tensorrt, None
    watched = onnxruntime_placement.tensors_to_watch(normal, named)
    others = ranges_of(watched, histograms, calibration, kind)

    def for_onnxruntime(kept: frozenset[str]) -> onnx.ModelProto:
        return onnxruntime_placement.place(normal, others, kept=kept | named.keys(), weights=folder)

    return for_tensorrt, for_onnxruntime


def _references(job: AutoKeepJob, clock: _Clock) -> tuple[Path, ...]:
    """Run the source on calibration samples, as many as trials have time for. Return a file for each."""
    folder, data = Path(job.folder), job.data
    session = Session(job.source, emulated=job.feed.emulated, threads=job.feed.threads)
    paths: list[Path] = []
    with open_data(data, job.feed.facts, folder) as samples:
        names = samples.split().calibration
        chosen = frozenset(names[:: max(1, len(names) // _JUDGED)][:_JUDGED])
        size = 0
        for _, inputs in samples.read(chosen):
            try:
                outputs = session.run(job.feed, inputs)
            except RunFailedError:
                continue  # reported by the run on held-out samples and by the collection of histograms
            path = folder / f"search-{len(paths)}.npz"
            size += save_run(path, inputs, outputs)
            paths.append(path)
            if len(paths) >= _RANKED and (clock.is_over(_REFERENCES) or size > _MOST_BYTES):
                break
    return tuple(paths)


def _read(path: Path) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return inputs and outputs of a run, with texts in the form of ONNX Runtime."""
    found: dict[str, dict[str, Array]] = {"input": {}, "output": {}}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            kind, _, name = key.partition(":")
            array = archive[key]
            found[kind][name] = np.char.decode(array, "utf-8").astype(object) if array.dtype.kind == "S" else array
    return found["input"], found["output"]


class _Judge:
    """Measures the share of equal decoded answers; sequences must be equal as a whole."""

    def __init__(self, job: AutoKeepJob, paths: Sequence[Path]) -> None:
        self._feed = job.feed
        self._weights = Path(job.model).parent
        self._paths = paths
        gates = job.verification.outputs or {}
        limits = dict.fromkeys((spec.name for spec in job.feed.facts.outputs), job.limit)
        meters = open_meters(job.feed.facts.outputs, gates, paths[:_DECODED], limits)
        self._decodings: dict[str, Decoding] = {name: meter.decoding for name, meter in meters.items()}
        least = DEFAULT_AGREEMENT if job.bounds.agreement is None else job.bounds.agreement
        asked = {name: gates.get(name, OutputGate()).agreement for name in meters}
        limits = {name: least if limit is None else limit for name, limit in asked.items()}
        # The search uses only half of the allowed difference, because held-out samples judge the result. Sequences are
        # judged by their single answers, whose share is far above that of correct sequences.
        self._wanted = {name: limit if self._is_sequence(name) else (1 + limit) / 2 for name, limit in limits.items()}

    def _is_sequence(self, output: str) -> bool:
        return len(self._decodings[output].places) == 1

    def measure(self, model: onnx.ModelProto, is_over: Callable[[], bool]) -> Trial | None:
        """Run every sample. Return None if the time is over."""
        session = open_exact(model, self._weights, self._feed.threads)
        specs = self._feed.facts.outputs
        names = [spec.name for spec in specs]
        counts = dict.fromkeys(names, (0, 0))
        for path in self._paths:
            if is_over():
                return None
            inputs, expected = _read(path)
            for spec, answer in zip(specs, run_session(session, names, self._feed, inputs), strict=True):
                answers, same = self._count(spec, answer, expected[spec.name])
                counts[spec.name] = (counts[spec.name][0] + answers, counts[spec.name][1] + same)
        shares = {name: same / answers for name, (answers, same) in counts.items() if answers}
        return Trial(
            agreement=min(shares.values(), default=1.0),
            passed=all(share >= self._wanted[name] for name, share in shares.items()),
        )

    def _count(self, spec: TensorSpec, answer: Array, expected: Array) -> tuple[int, int]:
        """Return the number of answers of one sample, and how many of them are equal to FP32."""
        if find_unlike(answer, expected, spec.dtype) is not None:
            return _NEVER, 0
        answers, same = count_answers(self._decodings[spec.name], answer, expected, spec.dtype)
        # One wrong character changes the text, but hardly the share of characters.
        return (1, int(answers == same)) if self._is_sequence(spec.name) else (answers, same)
