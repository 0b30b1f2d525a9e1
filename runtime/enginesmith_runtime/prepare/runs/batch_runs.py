"""The batching proof in the child process.

There are two kinds of trials. Join trials check that f(a then b) is f(a) then f(b), for several seeds and once in the
largest batch. Exchange trials check that, in a batch of one shape, the outputs of some rows do not change while the
other rows get the smallest, the largest and spread values that the spec allows; and again with the watched rows near
one end of the range and the others at the other end. A model that mixes rows only beyond some value can pass join
trials by chance. Exchange trials need no tolerance for rounding, because the same kernels add in the same order.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from enginesmith_contract.preparation import Batching
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_contract.verification import InputValues
from enginesmith_runtime.prepare.jobs import BatchJob, EventKind, Feed
from enginesmith_runtime.prepare.runs.inputs import FLOATS, Array, fill_inputs, read_values, typed_values
from enginesmith_runtime.prepare.runs.reference_runs import (
    SAME_RELATIVE,
    RunFailedError,
    Session,
    bound_memory,
    difference_of,
    is_same,
    open_session,
)
from enginesmith_runtime.prepare.worker_events import Emit

__all__ = ["compare_batches"]

_SEEDS: Final = 3
# Values without a range in the spec: sizes that activations, FP16 and sums reach.
_MAGNITUDES: Final = (16.0, 1.0, 150.0, 1000.0, 65504.0, 1e9)
_SPREADS: Final = 6
_SPREAD_BITS: Final = (-6.0, 17.0)
_PARTS: Final = tuple(number / 8 for number in range(1, 8))  # positions in a range of the spec
_ENDS: Final = (1 / 4, 1 / 16, 1 / 256)  # shares of a range of the spec
_EXCHANGE_TOLERANCE: Final = 1e-5
_ROUNDING: Final = 0.05
"""Tolerance as a share of the largest value. With another number of rows, CPU kernels add in another order, and some
models amplify the last bits. A real dependence on the number of rows is larger."""
_FP32_MAX: Final = 3.3e38
_FP16_MAX: Final = 65504.0


@dataclass(frozen=True, kw_only=True)
class _Contrast:
    """Two fillings of rows that are compared.

    Attributes:
        quiet: Values of the watched rows.
        loud: Values of the rows around them.
        words: Description of `loud` for messages.
        largest: Largest value of an input without a range; 0 if every input has a range.
        spread: If above 0, inputs without a range hold numbers of every size, which depend on this number.
    """

    quiet: Feed
    loud: Feed
    words: str
    largest: float
    spread: int = 0


@dataclass(kw_only=True)
class _Trials:
    """State of one proof."""

    job: BatchJob
    session: Session
    joined: int = 0
    most: int = 0
    exchanged: int = 0
    ordinary: dict[str, Array] | None = None
    largest: float = 0.0
    rounding: float = 0.0

    def join(self) -> str:
        """Return a text about the difference between a joined run and single runs, or ""."""
        for seed in range(_SEEDS):
            feed = self.job.feed if seed == 0 else _around_files(self.job.feed)
            first = fill_inputs(feed, self.job.first, f"batch a {seed}")
            second = fill_inputs(feed, self.job.second, f"batch b {seed}")
            try:
                of_first, of_second = (self.session.run(feed, inputs) for inputs in (first, second))
                together = self.session.run(feed, _joined(first, second))
            except (RunFailedError, MemoryError) as error:
                return f"the model refuses the joined batch: {error}"
            self.joined += 1
            difference = self._difference(of_first, of_second, together)
            if difference:
                return difference
        return self._fill(first, second, of_first, of_second) if self.job.largest is not None else ""

    def _fill(
        self, first: dict[str, Array], second: dict[str, Array], of_first: dict[str, Array], of_second: dict[str, Array]
    ) -> str:
        """Join `first` with rows of `second` up to the largest batch. Return "" if there is not enough memory."""
        rows = next(iter((self.job.largest or self.job.second).values()))[0]
        try:
            together = self.session.run(self.job.feed, _joined(first, _repeated(second, rows)))
        except (RunFailedError, MemoryError):
            return ""
        self.joined += 1
        self.most = rows + next(iter(first.values())).shape[0]
        return self._difference(of_first, _repeated(of_second, rows), together)

    def _difference(self, first: dict[str, Array], second: dict[str, Array], both: dict[str, Array]) -> str:
        """Return a text about the difference of the joined run, or "" if there is only rounding."""
        for name, joined in both.items():
            parts = [first[name], second[name]]
            if any(part.ndim == 0 for part in parts) or [part.shape[1:] for part in parts] != [joined.shape[1:]] * 2:
                return f"output {name} has another shape when two batches are joined"
            want = np.concatenate(parts)
            if want.shape != joined.shape:
                return (
                    f"output {name} has {joined.shape[0]} rows for two joined batches, {want.shape[0]} for them apart"
                )
            difference = difference_of(joined, want)
            if difference > _ROUNDING:
                size = f", by {difference:.2g} of its largest value" if np.isfinite(difference) else ""
                return f"output {name} of one batch depends on what else is in the batch{size}"
            self.rounding = max(self.rounding, difference)
        return ""

    def exchange(self, contrast: _Contrast) -> str:
        """Return a text about rows that change with others, or "" if none does or the model refuses the values."""
        job = self.job
        sides = (("exchange a", job.first), ("exchange b", job.second))
        quiet = [fill_inputs(contrast.quiet, shapes, seed) for seed, shapes in sides]
        loud = [fill_inputs(contrast.loud, shapes, seed) for seed, shapes in sides]
        if contrast.spread:
            loud = [
                _of_every_size(inputs, job.feed, contrast.spread + _SPREADS * side) for side, inputs in enumerate(loud)
            ]
        rows = next(iter(quiet[0].values())).shape[0]
        batches = ((quiet[0], loud[1]), (loud[0], quiet[1]), (loud[0], loud[1]))
        try:
            plain = self._plain(contrast, quiet)
            second, first, all_loud = (self.session.run(job.feed, _joined(a, b)) for a, b in batches)
        except (RunFailedError, MemoryError):
            return ""
        self.exchanged += 1
        for name, answer in plain.items():
            pairs = (
                (answer[:rows], second[name][:rows]),
                (answer[rows:], first[name][rows:]),
                (first[name][:rows], all_loud[name][:rows]),
                (second[name][rows:], all_loud[name][rows:]),
            )
            if any(a.shape != b.shape or not is_same(b, a, _EXCHANGE_TOLERANCE) for a, b in pairs):
                return f"output {name} of one batch depends on what else is in the batch, with {contrast.words}"
        return ""

    def _plain(self, contrast: _Contrast, quiet: Sequence[dict[str, Array]]) -> dict[str, Array]:
        """Return the outputs for quiet rows alone. Ordinary rows are run only once."""
        if contrast.quiet is not self.job.feed:
            return self.session.run(self.job.feed, _joined(*quiet))
        if self.ordinary is None:
            self.ordinary = self.session.run(self.job.feed, _joined(*quiet))
        return self.ordinary

    def verdict(self) -> Batching:
        """Return the result so far."""
        parts = (self.job.first, self.job.second)
        most = self.most or sum(next(iter(shapes.values()))[0] for shapes in parts)
        reason = f"shown in {self.joined} joined batches of up to {most} rows"
        if self.exchanged:
            reason += f" and with {self.exchanged} other fillings of the rows around a row"
        if self.largest:
            reason += f", of values up to {self.largest:g}"
        if self.rounding > SAME_RELATIVE:
            reason += (
                f"; joined and single answers differ by {self.rounding:.2g} of the largest value, which is rounding of "
                "this processor, since the exchanges change nothing"
            )
        return Batching(proved=True, reason=reason)


def compare_batches(job: BatchJob, emit: Emit) -> None:
    """Emit whether rows are independent: first for ordinary values, then after each extreme filling."""
    bound_memory(job.memory_bytes)
    session = open_session(job.model, job.feed, emit)
    if session is None:
        return
    trials = _Trials(job=job, session=session)
    difference = trials.join()
    if difference:
        _deny(difference, emit)
        return
    if trials.rounding > SAME_RELATIVE:
        # Without an exchange of rows in a batch of one shape, the model might also mix rows a little.
        _deny(
            f"the answers of joined batches differ by {trials.rounding:.2g} of the largest value, and nothing shows "
            "that this is rounding of this processor; prepare the model on another one, or give verification.inputs",
            emit,
        )
    else:
        emit(EventKind.RESULT, trials.verdict().model_dump(mode="json"))
    deadline = time.monotonic() + job.seconds
    for contrast in _contrasts(job.feed):
        if time.monotonic() > deadline:
            break
        before = trials.exchanged
        difference = trials.exchange(contrast)
        if difference:
            _deny(difference, emit)
            return
        if trials.exchanged > before:
            trials.largest = max(trials.largest, contrast.largest)
            emit(EventKind.RESULT, trials.verdict().model_dump(mode="json"))


def _deny(reason: str, emit: Emit) -> None:
    emit(EventKind.RESULT, Batching(proved=False, reason=reason).model_dump(mode="json"))


def _repeated(arrays: Mapping[str, Array], rows: int) -> dict[str, Array]:
    """Return arrays with this number of rows, by repeating the existing rows."""
    return {
        name: array if array.ndim == 0 else np.take(array, np.arange(rows), axis=0, mode="wrap")
        for name, array in arrays.items()
    }


def _joined(first: Mapping[str, Array], second: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.concatenate([array, second[name]]) for name, array in first.items()}


def _contrasts(feed: Feed) -> Iterator[_Contrast]:
    """Yield ordinary rows with rows at the limits of the spec, then rows at both ends of it."""
    seen: list[Mapping[str, InputValues]] = []
    for magnitude in _MAGNITUDES:
        borders = {spec.name: _borders(spec, feed, magnitude) for spec in feed.facts.inputs}
        known = {name: pair for name, pair in borders.items() if pair is not None}
        free = [spec.name for spec in feed.facts.inputs if spec.name in known and _is_free(spec, feed)]
        largest = max((known[name][1] for name in free), default=0.0)
        lows = {name: InputValues(constant=low) for name, (low, _) in known.items()}
        highs = {name: InputValues(constant=high) for name, (_, high) in known.items()}
        spread = {name: InputValues(range=pair) for name, pair in known.items()}
        said = ", ".join(f"{name} in [{low:g}, {high:g}]" for name, (low, high) in known.items())
        ways = (("the largest", highs), ("the smallest", lows), ("random", spread))
        for words, loud in ways if magnitude == _MAGNITUDES[0] else ways[:2]:
            if loud and loud not in seen:
                seen.append(loud)
                yield _Contrast(quiet=feed, loud=_with(feed, loud), words=f"{words} values of {said}", largest=largest)
        if free and magnitude == _MAGNITUDES[0]:
            words = f"values of every size of {', '.join(free)}"
            most = min(
                2.0 ** _SPREAD_BITS[1], max(_most(spec.dtype) for spec in feed.facts.inputs if spec.name in free)
            )
            for number in range(1, _SPREADS + 1):
                yield _Contrast(quiet=feed, loud=feed, words=words, largest=most, spread=number)
        given = lows != highs and len(free) < len(known)
        for share in _PARTS if given and magnitude == _MAGNITUDES[0] else ():
            inner = {name: InputValues(constant=_between(pair, share, feed, name)) for name, pair in known.items()}
            words_of = f"values {share:.0%} up in {said}"
            yield _Contrast(quiet=feed, loud=_with(feed, inner), words=words_of, largest=largest)
        for share in _ENDS if given and magnitude == _MAGNITUDES[0] else ():
            for words, loud, end in (("the largest", highs, share), ("the smallest", lows, -share)):
                quiet = {name: InputValues(range=_end(pair, end)) for name, pair in known.items()}
                words_of = f"{words} values of {said}"
                yield _Contrast(quiet=_with(feed, quiet), loud=_with(feed, loud), words=words_of, largest=largest)


def _of_every_size(inputs: Mapping[str, Array], feed: Feed, number: int) -> dict[str, Array]:
    """Return inputs with numbers of every size, by element or by row, if the spec gives no range."""
    random = np.random.default_rng(number)
    filled = dict(inputs)
    for spec in feed.facts.inputs:
        if not _is_free(spec, feed) or spec.dtype is DType.BYTES:
            continue
        shape = filled[spec.name].shape
        sizes = 2 ** random.uniform(*_SPREAD_BITS, size=shape if number % 2 else (shape[0], *(1 for _ in shape[1:])))
        sizes = np.minimum(sizes * np.ones(shape), _most(spec.dtype))
        signs = random.choice((-1, 1), size=shape) if spec.dtype in FLOATS else 1
        filled[spec.name] = typed_values(sizes * signs, spec.dtype)
    return filled


def _with(feed: Feed, values: Mapping[str, InputValues]) -> Feed:
    return feed.model_copy(update={"values": {**feed.values, **values}})


def _end(pair: tuple[float, float], share: float) -> tuple[float, float]:
    """Return the lowest share of a range, or the highest for a negative one."""
    low, high = pair
    return (low, low + (high - low) * share) if share > 0 else (high + (high - low) * share, high)


def _between(pair: tuple[float, float], share: float, feed: Feed, name: str) -> float:
    value = pair[0] + (pair[1] - pair[0]) * share
    dtype = next(spec.dtype for spec in feed.facts.inputs if spec.name == name)
    return value if dtype in FLOATS else float(round(value))


def _borders(spec: TensorSpec, feed: Feed, magnitude: float) -> tuple[float, float] | None:
    """Return the smallest and the largest value of an input, or None if it holds text."""
    given = feed.values.get(spec.name)
    if spec.dtype is DType.BYTES:
        return None
    if given is not None:
        return _borders_given(spec.name, given)
    if spec.name in feed.index_bounds:
        return 0.0, float(max(feed.index_bounds[spec.name] - 1, 0))
    most = min(magnitude, _most(spec.dtype))
    return (-most if spec.dtype in FLOATS else 0.0), most


def _borders_given(name: str, given: InputValues) -> tuple[float, float] | None:
    if given.npz is not None:
        return _borders_of_file(name, given.npz)
    return given.range if given.constant is None else (given.constant, given.constant)


def _is_free(spec: TensorSpec, feed: Feed) -> bool:
    return spec.name not in feed.values and spec.name not in feed.index_bounds and spec.dtype is not DType.BOOL


def _most(dtype: DType) -> float:
    match dtype:
        case DType.BOOL:
            return 1.0
        case DType.BF16 | DType.FP32:
            return _FP32_MAX
        case DType.FP16:
            return _FP16_MAX
        case DType.FP64:
            return math.inf
        case _:
            bits = 8 * (dtype.item_bytes or 1) - (0 if dtype.value.startswith("U") else 1)
            return float(2**bits - 1)


def _borders_of_file(name: str, path: str) -> tuple[float, float] | None:
    array = read_values(name, Path(path))
    finite = array[np.isfinite(array)] if np.issubdtype(array.dtype, np.floating) else array
    return (float(finite.min()), float(finite.max())) if finite.size else None


def _around_files(feed: Feed) -> Feed:
    """Return the feed with random values in the range of each file instead of the file, because short files repeat."""
    values = dict(feed.values)
    for name, given in feed.values.items():
        borders = _borders_of_file(name, given.npz) if given.npz is not None else None
        if borders is not None:
            values[name] = InputValues(range=borders)
    return feed.model_copy(update={"values": values})
