"""Section `execution`: the bare graph loop against the engine interface, in process, side by side."""

import statistics
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from benchmarks.gpu.documents import Workplace
from benchmarks.gpu.engine_loop import InstanceLoop, open_engine
from benchmarks.gpu.workers import Turns, Worker, run_together, started
from benchmarks.measure import spread

if TYPE_CHECKING:
    from enginesmith_runtime.engines.interface import DeviceMemory

__all__ = ["compare", "measure_execution"]

_CASES: Final = (
    ("resnet50-fp16", "1x3x224x224"),
    ("resnet50-fp16", "8x3x224x224"),
    ("resnet50-fp16", "32x3x224x224"),
    ("cls-fp32", "1x3x48x192"),
    ("rec-fp16", "1x3x48x160"),
    ("rec-fp16", "1x3x48x320"),
    ("det-fp32", "1x3x640x640"),
)
_WITHOUT_GRAPH: Final = frozenset(case for case in _CASES if case[1].startswith("1x"))
_NO_GRAPHS: Final = ("--option", "cudaGraphs=0")


def measure_execution(work: Workplace, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Return rates, medians and their ratios for each engine and shape that was built."""
    figures: dict[str, Any] = {}
    for name, shape in _CASES:
        if not work.has(name):
            continue
        commands = {
            "bare": ["benchmarks.gpu.bare_loop", str(work.root), name, shape],
            "ours": ["benchmarks.gpu.engine_loop", str(work.root), name, shape],
            "oursTwoInstances": ["benchmarks.gpu.engine_loop", str(work.root), name, shape, "--instances", "2"],
        }
        if (name, shape) in _WITHOUT_GRAPH:
            commands["bareNoGraph"] = [*commands["bare"], "--no-graph"]
            commands["oursNoGraph"] = [*commands["ours"], *_NO_GRAPHS]
            commands["oursFourInstances"] = [*commands["ours"], "--instances", "4"]
            commands["oursFourNoGraph"] = [*commands["oursFourInstances"], *_NO_GRAPHS]
        try:
            with started(*commands.values()) as workers:
                found = compare([[worker] for worker in workers], rounds, seconds)
            case = _figures(dict(zip(commands, found, strict=True)))
            case["copyIntoStagingSeconds"] = _copy_seconds(work, name, shape)
        except (RuntimeError, ValueError) as error:
            case = {"failed": str(error)}
        figures[f"{name} {shape}"] = case
    if work.has("resnet50-fp16"):
        figures["steadyState"] = _steady_state(work)
    return figures


def _steady_state(work: Workplace) -> dict[str, Any]:
    """Run many shapes in turn with graphs and without: the same answers, and no memory taken once each was seen."""
    manifest = work.manifest("resnet50-fp16")
    (spec,), (output,) = manifest.inputs, manifest.outputs
    random = np.random.default_rng(3)
    batches = (1, 8, 32, 8, 1, 16, 5, 32, 5)
    requests = [random.random((batch, 3, 224, 224), np.float32) for batch in batches]
    answers: dict[str, list[np.ndarray]] = {}
    allocations: dict[str, int] = {}
    memory: dict[str, Any] = {}
    for name, options in (("graphs", {}), ("plain", {"cudaGraphs": "0"})):
        with (
            work.files(manifest) as folder,
            closing(open_engine(manifest, folder, options)) as engine,
            engine.open_instance() as instance,
        ):
            counts: list[DeviceMemory] = []
            for _ in range(4):
                # An answer holds until the next inference.
                found = [
                    np.array(instance.infer({spec.name: x}, profile=0, outputs=(output.name,))[output.name])
                    for x in requests
                ]
                taken = engine.device_memory
                assert taken is not None
                counts.append(taken)
            answers[name] = found
            allocations[name] = counts[-1].allocations - counts[0].allocations
            memory[name] = asdict(counts[-1])
    return {
        "batches": list(batches),
        "largestDifference": max(
            float(np.abs(a - b).max()) for a, b in zip(answers["graphs"], answers["plain"], strict=True)
        ),
        "allocationsAfterTheFirstRound": allocations,
        "deviceMemory": memory,
    }


def compare(groups: Sequence[Sequence[Worker]], rounds: int, seconds: float) -> list[list[Turns]]:
    """Let the groups run in turn, A B C A B C; returns each group's rounds."""
    found: list[list[Turns]] = [[] for _ in groups]
    for _ in range(rounds):
        for group, results in zip(groups, found, strict=True):
            results.append(run_together(group, seconds))
    return found


def _figures(found: dict[str, list[Turns]]) -> dict[str, Any]:
    bare = found["bare"]
    figures: dict[str, Any] = {}
    for name, rounds in found.items():
        figures[name] = {
            "perSecond": spread([one.rate for one in rounds]),
            "p50Milliseconds": spread([one.p50 * 1e3 for one in rounds]),
        }
        if name != "bare":
            figures[name]["rateRatio"] = spread([a.rate / b.rate for a, b in zip(rounds, bare, strict=True)])
            figures[name]["p50Ratio"] = spread([a.p50 / b.p50 for a, b in zip(rounds, bare, strict=True)])
    for name, pair in (("bareGraphGain", ("bareNoGraph", "bare")), ("oursGraphGain", ("oursNoGraph", "ours"))):
        if pair[0] in found:
            slow, fast = (found[one] for one in pair)
            figures[name] = statistics.median(a.p50 / b.p50 for a, b in zip(slow, fast, strict=True))
    if "oursFourNoGraph" in found:
        pairs = zip(found["oursFourInstances"], found["oursFourNoGraph"], strict=True)
        figures["oursGraphGainOfFour"] = statistics.median(fast.rate / slow.rate for fast, slow in pairs)
    return figures


def _copy_seconds(work: Workplace, name: str, shape: str) -> float:
    manifest = work.manifest(name)
    sizes = tuple(int(size) for size in shape.split("x"))
    with (
        work.files(manifest) as folder,
        closing(open_engine(manifest, folder, {})) as engine,
        engine.open_instance() as instance,
    ):
        return InstanceLoop(manifest, instance, sizes).copy_seconds()
