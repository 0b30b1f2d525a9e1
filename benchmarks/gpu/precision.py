"""Section `precision`: engines in each precision, built by the product, and timed in turn against the one in FP16.

Preparations run on the CPUs while the first engines are built. What was found is written after every step, and no build
starts after the budget.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from queue import Queue
from typing import Any, Final

from benchmarks.gpu.building import build_in_process
from benchmarks.gpu.documents import Workplace
from benchmarks.gpu.placement_variants import VARIANTS, plan_of
from benchmarks.gpu.precision_documents import Family, families, write_calibration
from benchmarks.gpu.workers import run_together, started_where_possible
from benchmarks.measure import spread

__all__ = ["measure_precision"]

_DOES_NOT_RUN: Final = "it does not run at this shape"
_LATE: Final = "not built: the section's time was spent"
_LONGEST_TURN: Final = 0.4
_LEAST_BUILD_SECONDS: Final = 60.0
_MOST_PREPARATIONS: Final = 3  # at once; each has a part of the CPUs
_VARIED: Final = "precision-resnet50-int8"


def measure_precision(
    work: Workplace,
    *,
    rounds: int,
    seconds: float,
    budget_seconds: float,
    build_limit: float,
    wanted: Sequence[str] = (),
) -> dict[str, Any]:
    """Build, verify, time.

    Args:
        work: where the models are.
        rounds: of every measurement.
        seconds: of one engine in one round, 0.4 at most.
        budget_seconds: of the section, after which no build starts.
        build_limit: seconds of one build.
        wanted: names of engines and variants; none: all.
    """
    write_calibration(work)
    run = _Run(work, rounds, min(seconds, _LONGEST_TURN), time.monotonic() + budget_seconds, build_limit)
    kept = [_only(family, wanted) for family in families(work)]
    names = [one.name for family in kept for one in family.documents]
    parts = _parts_of_cpus()
    with ThreadPoolExecutor(parts.qsize()) as pool:
        prepared = {name: pool.submit(_prepare, work, name, parts) for name in names}  # in the order of the builds
        try:
            for family in kept:
                run.build_family(family, prepared)
        finally:
            pool.shutdown(cancel_futures=True)
    for family in kept[:1]:
        run.time_family(family)
    if work.backend != "onnxruntime" and work.has(_VARIED):
        run.vary(kept[0], [name for name in VARIANTS if not wanted or name in wanted])
    return run.figures


def _only(family: Family, wanted: Sequence[str]) -> Family:
    kept = tuple(one for one in family.documents if not wanted or one.name in wanted)
    return Family(name=family.name, documents=kept, shapes=family.shapes)


def _parts_of_cpus() -> Queue[str]:
    """Return the numbers of this process's CPUs in a few parts of one size, each separated by commas."""
    usable = sorted(os.sched_getaffinity(0))
    count = min(_MOST_PREPARATIONS, len(usable))
    parts: Queue[str] = Queue()
    for number in range(count):
        parts.put(",".join(map(str, usable[number::count])))
    return parts


def _prepare(work: Workplace, name: str, parts: Queue[str]) -> None:
    """Prepare one document on one part of the CPUs; the build that follows says what went wrong."""
    cpus = parts.get()
    command = [sys.executable, "-m", "benchmarks.gpu.building", str(work.root), work.backend, name, "prepare", cpus]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts.put(cpus)


@dataclass
class _Run:
    """What was found so far, and until when builds may start."""

    work: Workplace
    rounds: int
    seconds: float
    until: float
    build_limit: float
    figures: dict[str, Any] = field(default_factory=lambda: {"engines": {}, "latency": {}, "variants": {}})

    def build_family(self, family: Family, prepared: Mapping[str, Future[None]]) -> None:
        """Build one model in every precision; the two that matter most are timed at once."""
        built = 0
        for document in family.documents:
            if self._is_late():
                self._keep("engines", document.name, {"notBuilt": _LATE})
                continue
            prepared[document.name].result()
            self._keep("engines", document.name, self._timed(partial(self._build, document.name)))
            built += self.work.has(document.name)
            if document.name.endswith("int8") and built > 1:
                self.time_family(family)

    def time_family(self, family: Family) -> None:
        """Time all engines of a model, in turn."""
        engines = {one.name: self.work.has(one.name) for one in family.documents if "uint8" not in one.name}
        commands = {
            (name, shape): self._loop(name, shape)
            for name, built in engines.items()
            if built
            for shape in family.shapes
        }
        if commands:
            self._keep("latency", family.name, self._compare(commands, family.documents[0].name))

    def vary(self, family: Family, variants: Sequence[str]) -> None:
        """Build and time other places of QuantizeLinear and DequantizeLinear."""
        commands = {(_VARIED, shape): self._loop(_VARIED, shape) for shape in family.shapes}
        for name in variants:
            if self._is_late():
                self._keep("variants", name, {"notBuilt": _LATE})
                continue
            self._keep("variants", name, self._timed(partial(self._build_variant, name)))
            if plan_of(self.work, name).exists():
                for shape in family.shapes:
                    plan = ["--plan", str(plan_of(self.work, name))]
                    commands[name, shape] = [*self._loop(_VARIED, shape), *plan]
        if len(commands) > len(family.shapes):
            self._keep("latency", "placement", self._compare(commands, _VARIED))

    def _is_late(self) -> bool:
        return time.monotonic() >= self.until

    def _limit(self) -> float:
        return min(self.build_limit, max(self.until - time.monotonic(), _LEAST_BUILD_SECONDS))

    def _build(self, name: str) -> dict[str, Any]:
        return build_in_process(self.work, name, 0, self._limit())

    def _build_variant(self, variant: str) -> dict[str, Any]:
        words = ["benchmarks.gpu.placement_variants", str(self.work.root), self.work.backend, _VARIED, variant]
        try:
            done = subprocess.run(
                [sys.executable, "-m", *words], check=False, capture_output=True, text=True, timeout=self._limit()
            )
        except subprocess.TimeoutExpired as error:
            return {"failed": str(error)}
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        return dict(json.loads(lines[-1])) if lines else {"failed": done.stderr[-1500:]}

    def _timed(self, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        begun = time.monotonic()
        found = make()
        return {**found, "tookSeconds": round(time.monotonic() - begun, 1)}

    def _loop(self, name: str, shape: Sequence[int]) -> list[str]:
        words = [str(self.work.root), name, "x".join(map(str, shape))]
        if self.work.backend == "tensorrt":
            return ["benchmarks.gpu.bare_loop", *words, "--no-copies"]
        return ["benchmarks.gpu.engine_loop", *words]

    def _compare(self, commands: Mapping[tuple[str, tuple[int, ...]], list[str]], reference: str) -> dict[str, Any]:
        """Return milliseconds by shape and name, and how many times faster than the reference."""
        found: dict[str, Any] = {}
        # A worker that fails ends these figures, not those of other models.
        with contextlib.suppress(ValueError, OSError), started_where_possible(*commands.values()) as workers:
            loops = dict(zip(commands, workers, strict=True))
            for shape in dict.fromkeys(shape for _, shape in loops):
                group = {name: worker for (name, at), worker in loops.items() if at == shape}
                ready = {name: worker for name, worker in group.items() if worker is not None}
                took: dict[str, list[float]] = {name: [] for name in ready}
                for _ in range(self.rounds):
                    for name, worker in ready.items():
                        took[name].append(run_together([worker], self.seconds).p50 * 1e3)
                found["x".join(map(str, shape))] = {
                    name: _against(took, name, reference) if name in took else {"failed": _DOES_NOT_RUN}
                    for name in group
                }
        return found

    def _keep(self, part: str, name: str, found: dict[str, Any]) -> None:
        self.figures[part][name] = found
        (self.work.sections / "precision.json").write_text(json.dumps(self.figures))
        print(f"{part} {name}: {json.dumps(found)[:600]}", flush=True)


def _against(took: Mapping[str, Sequence[float]], name: str, reference: str) -> dict[str, Any]:
    found: dict[str, Any] = {"milliseconds": spread(took[name])}
    if reference in took:
        ratios = [other / own for other, own in zip(took[reference], took[name], strict=True)]
        found["timesFaster"] = spread(ratios)
    return found
