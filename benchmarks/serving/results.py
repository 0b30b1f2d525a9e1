"""What was measured: samples by row and server, one for each round, and the ratios that are promised."""

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.serving.client import Row, Sample

__all__ = ["BATCHED", "GOALS", "LOOP_BATCH", "Goal", "Results", "median"]

BATCHED = "bigmlp"
LOOP_BATCH = 8
_OURS, _GRPCIO, _BEST, _CPP = "enginesmith", "grpcio", "grpcio-best", "cpp"


@dataclass(kw_only=True)
class Results:
    """All samples.

    Attributes:
        loop: inferences a second of the bare loop at the batch size `LOOP_BATCH`, one for each round.
        missing: why a server does not serve, by server and model.
    """

    samples: dict[Row, dict[str, list[Sample]]] = field(default_factory=dict)
    loop: list[float] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, row: Row, server: str, sample: Sample) -> None:
        """Keep one sample."""
        self.samples.setdefault(row, {}).setdefault(server, []).append(sample)

    def add_loop(self, rate: float) -> None:
        """Keep what the bare loop did in one round."""
        self.loop.append(rate)

    def of(self, row: Row, server: str) -> list[Sample]:
        """Return a server's samples, in the order of the rounds; empty: it was not measured."""
        return self.samples.get(row, {}).get(server, [])

    @property
    def faults(self) -> list[str]:
        """What went wrong, by row and server."""
        return [
            f"{row}, {server}: {', '.join(sample.faults)}"
            for row, by_server in self.samples.items()
            for server, samples in by_server.items()
            for sample in samples
            if sample.faults
        ]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A ratio that is promised.

    Attributes:
        values: one for each round; empty where a part of it was not measured.
        most: whether `bound` is the most that it may be, not the least.
    """

    what: str
    values: Callable[[Results], list[float]]
    bound: float
    most: bool = False

    def met(self, value: float) -> bool:
        """Return whether the promise is kept."""
        return value <= self.bound if self.most else value >= self.bound


def median(values: list[float]) -> float:
    """Return the median; not a number where there is none."""
    return statistics.median(values) if values else math.nan


def _rate(sample: Sample) -> float:
    return sample.rate


def _cpu(sample: Sample) -> float:
    return sample.cpu_us


def _ratio(
    row: Row, theirs: str, of: Callable[[Sample], float] = _rate, other: Row | None = None
) -> Callable[[Results], list[float]]:
    """Return our rate (or what `of` takes) in `row` by theirs in `other`, which is the same row by default."""

    def values(results: Results) -> list[float]:
        pairs = zip(results.of(row, _OURS), results.of(other or row, theirs), strict=False)
        return [of(a) / of(b) for a, b in pairs if of(b)]

    return values


def _mlp(in_flight: int, connections: int = 1) -> Row:
    return Row(model="mlp", in_flight=in_flight, connections=connections)


def _slow_to_median(results: Results) -> list[float]:
    pairs = zip(results.of(_mlp(8), _OURS), results.of(_mlp(8), _GRPCIO), strict=False)
    return [ours.p99_ms / theirs.p50_ms for ours, theirs in pairs if theirs.p50_ms]


def _of_loop(results: Results) -> list[float]:
    ours = results.of(Row(model=BATCHED, in_flight=8), _OURS)
    return [sample.rate / loop for sample, loop in zip(ours, results.loop, strict=False)]


def _large(*, shared: bool) -> Row:
    return Row(model="tensor", in_flight=4, shared=shared)


def _goals() -> Iterator[Goal]:
    yield Goal(what="small MLP, 8 in flight: rate / grpcio", values=_ratio(_mlp(8), _GRPCIO), bound=4.4)
    yield Goal(what="small MLP, 32 in flight: rate / grpcio", values=_ratio(_mlp(32), _GRPCIO), bound=8.0)
    for count in (8, 32):
        yield Goal(what=f"small MLP, {count} in flight: rate / C++", values=_ratio(_mlp(count), _CPP), bound=0.8)
    yield Goal(what="small MLP, 1 in flight: rate / grpcio", values=_ratio(_mlp(1), _GRPCIO), bound=1.8)
    p50 = _ratio(_mlp(1), _CPP, lambda sample: sample.p50_ms)
    yield Goal(what="small MLP, 1 in flight: p50 / C++", values=p50, bound=1.3, most=True)
    many = _mlp(256, 256)
    yield Goal(
        what="small MLP, 256 connections: rate / rate at 32", values=_ratio(many, _OURS, other=_mlp(32)), bound=0.75
    )
    yield Goal(
        what="small MLP, 256 connections: memory, MB",
        values=lambda results: [sample.memory / 1e6 for sample in results.of(many, _OURS)],
        bound=300,
        most=True,
    )
    yield Goal(what="small MLP, 8 in flight: p99 / grpcio's p50", values=_slow_to_median, bound=1.0, most=True)
    yield Goal(
        what="small MLP, 8 in flight: CPU a request / grpcio",
        values=_ratio(_mlp(8), _GRPCIO, _cpu),
        bound=0.2,
        most=True,
    )
    plain, shared = _large(shared=False), _large(shared=True)
    yield Goal(
        what="4.9 MB, 4 in flight: CPU a request / best grpcio", values=_ratio(plain, _BEST, _cpu), bound=0.5, most=True
    )
    yield Goal(
        what="4.9 MB in shared memory, 4 in flight: rate / files read", values=_ratio(shared, _GRPCIO), bound=5.0
    )
    yield Goal(what="batched MLP, 8 in flight: inferences / bare loop at 8", values=_of_loop, bound=0.9)
    for model in ("cls", "det", "rec"):
        for count in (1, 2):
            row = Row(model=model, in_flight=count)
            yield Goal(what=f"{model}, {count} in flight: rate / C++", values=_ratio(row, _CPP), bound=0.95)


GOALS = tuple(_goals())
