"""Histograms of the absolute values of tensors over many samples, in one pass over the data.

A histogram has 2,048 equal bins from 0 to a power of two. The range doubles by joining pairs of bins, so the result
does not depend on the order of the samples. Every method uses the same histograms.

All outputs of a run of ONNX Runtime are in memory together. If the tensors do not fit, they are computed in groups,
with one session for each group. The sessions share the weights.
"""

import json
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from enginesmith_contract.errors import SpecError
from enginesmith_runtime.prepare.quantize.watched_runs import WatchedRuns, refused_by_model
from enginesmith_runtime.prepare.runs.inputs import Array
from enginesmith_runtime.prepare.runs.reference_runs import RunFailedError

__all__ = ["BINS", "Histogram", "collect", "read_histograms", "write_histograms"]

BINS: Final = 2048
# This size fits into the CPU cache with its copies.
_CHUNK: Final = 1 << 15
# With this limit the factor from values to bins is an FP32 number.
_LEAST_EXPONENT: Final = -100
_MEMORY_BYTES: Final = 1 << 30
_FORMAT: Final = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Histogram:
    """Values of one tensor over all samples.

    Attributes:
        counts: int64 [2048]; number of values v != 0 in each of the equal bins of |v| from 0 to `limit`.
        limit: Upper end of the last bin, a power of two; 0 if all values are 0.
        zeros: Number of values that are exactly 0.
        lowest: Smallest value.
        highest: Largest value.
        largest: float32 [samples]; largest |v| of each sample.
        widest_sample: Name of the sample with the largest |v|.
        not_finite: Name of the first sample with NaN or infinity, which is not counted; empty if there is none.
    """

    counts: npt.NDArray[np.int64]
    limit: float
    zeros: int
    lowest: float
    highest: float
    largest: npt.NDArray[np.float32]
    widest_sample: str
    not_finite: str

    @property
    def amax(self) -> float:
        """Return the largest absolute value."""
        return max(-self.lowest, self.highest, 0.0)


def collect(
    model: Path,
    samples: Iterable[tuple[str, Mapping[str, Array]]],
    tensors: Sequence[str],
    *,
    memory_bytes: int = _MEMORY_BYTES,
    threads: int = 1,
    tick: Callable[[int], None] | None = None,
) -> dict[str, Histogram]:
    """Run a model on every sample and return the histogram of each tensor, in the order of `tensors`.

    Args:
        model: ONNX file.
        samples: Name and inputs of each sample. One is in memory at a time.
        tensors: Names of float values or inputs of the main graph.
        memory_bytes: Memory limit of the tensors of one run in bytes.
        threads: Number of threads inside a node; 0 for ONNX Runtime's default.
        tick: Function that receives the number of completed samples. If it raises, the work ends.

    Raises:
        enginesmith_contract.errors.SpecError: `SampleRefusedByModel`.
    """
    growing = {name: _Growing() for name in dict.fromkeys(tensors)}
    runs = WatchedRuns(model, tuple(growing), memory_bytes=memory_bytes, threads=threads)
    for number, (sample, inputs) in enumerate(samples, start=1):
        try:
            for name, array in runs.values(inputs):
                growing[name].add(sample, array)
        except RunFailedError as error:
            raise refused_by_model(SpecError, sample, error) from error
        if tick is not None:
            tick(number)
    return {name: each.result() for name, each in growing.items()}


def write_histograms(histograms: Mapping[str, Histogram]) -> bytes:
    """Return histograms as bytes. Equal histograms give equal bytes."""
    head = {
        "format": _FORMAT,
        "tensors": [
            {
                "name": name,
                "limit": each.limit,
                "zeros": each.zeros,
                "lowest": each.lowest,
                "highest": each.highest,
                "samples": len(each.largest),
                "widestSample": each.widest_sample,
                "notFinite": each.not_finite,
            }
            for name, each in histograms.items()
        ],
    }
    parts = [json.dumps(head, separators=(",", ":")).encode() + b"\n"]
    for each in histograms.values():
        parts += [each.counts.astype("<i8").tobytes(), each.largest.astype("<f4").tobytes()]
    return zlib.compress(b"".join(parts))


def read_histograms(data: bytes) -> dict[str, Histogram]:
    """Return the histograms of `write_histograms`.

    Raises:
        ValueError: `data` has another format.
    """
    try:
        head, _, rest = zlib.decompress(data).partition(b"\n")
        document = json.loads(head)
        if document["format"] != _FORMAT:
            raise ValueError(document["format"])
        found: dict[str, Histogram] = {}
        offset = 0
        for row in document["tensors"]:
            counts = np.frombuffer(rest, "<i8", BINS, offset).astype(np.int64)
            offset += counts.nbytes
            largest = np.frombuffer(rest, "<f4", row["samples"], offset).astype(np.float32)
            offset += largest.nbytes
            found[row["name"]] = Histogram(
                counts=counts,
                limit=row["limit"],
                zeros=row["zeros"],
                lowest=row["lowest"],
                highest=row["highest"],
                largest=largest,
                widest_sample=row["widestSample"],
                not_finite=row["notFinite"],
            )
    except (zlib.error, KeyError, TypeError) as error:
        raise ValueError("these bytes are no histograms of this version") from error
    return found


@dataclass
class _Growing:
    """The histogram of one tensor while samples are added."""

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    exponent: int | None = None
    zeros: int = 0
    lowest: float = math.inf
    highest: float = -math.inf
    largest: list[float] = field(default_factory=list)
    widest_sample: str = ""
    not_finite: str = ""

    def add(self, sample: str, array: Array) -> None:
        """Count the values of one sample."""
        values = np.ascontiguousarray(array, dtype=np.float32).reshape(-1)
        if not values.size:
            self.largest.append(0.0)
            return
        lowest, highest = float(values.min()), float(values.max())
        if not math.isfinite(lowest) or not math.isfinite(highest):
            self.not_finite = self.not_finite or sample
            self.largest.append(0.0)
            return
        largest = max(-lowest, highest)
        if largest > max(self.largest, default=0.0) or not self.widest_sample:
            self.widest_sample = sample
        self.largest.append(largest)
        self.lowest, self.highest = min(lowest, self.lowest), max(highest, self.highest)
        if largest:
            self._grow(largest)
        self._count(values)

    def result(self) -> Histogram:
        """Return the histogram."""
        seen = self.lowest <= self.highest
        return Histogram(
            counts=self.counts,
            limit=0.0 if self.exponent is None else 2.0**self.exponent,
            zeros=self.zeros,
            lowest=self.lowest if seen else 0.0,
            highest=self.highest if seen else 0.0,
            largest=np.array(self.largest, np.float32),
            widest_sample=self.widest_sample,
            not_finite=self.not_finite,
        )

    def _grow(self, largest: float) -> None:
        """Double the range until `largest` is below its end."""
        wanted = max(math.frexp(largest)[1], _LEAST_EXPONENT)
        if self.exponent is None:
            self.exponent = wanted
        joined = min(2 ** max(wanted - self.exponent, 0), BINS)
        if joined > 1:
            counts = np.zeros(BINS, np.int64)
            counts[: BINS // joined] = self.counts.reshape(-1, joined).sum(axis=1)
            self.counts = counts
        self.exponent = max(self.exponent, wanted)

    def _count(self, values: npt.NDArray[np.float32]) -> None:
        if self.exponent is None:
            self.zeros += values.size
            return
        factor = np.float32(BINS * 2.0**-self.exponent)
        size = min(_CHUNK, values.size)
        bins, places = np.empty(size, np.float32), np.empty(size, np.intp)
        for start in range(0, values.size, size):
            chunk = values[start : start + size]
            scaled = np.multiply(chunk, factor, out=bins[: chunk.size])
            np.abs(scaled, out=scaled)
            places[: chunk.size] = scaled
            counts = np.bincount(places[: chunk.size], minlength=BINS)
            zeros = chunk.size - int(np.count_nonzero(chunk))
            counts[0] -= zeros
            self.zeros += zeros
            self.counts += counts
