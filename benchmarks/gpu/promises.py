"""What the figures must be, and whether they are: one table for the record and for the page that is made of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["judge"]

_RESNET: Final = "resnet50-fp16"
_REBUILDS: Final = {
    "det-fp32": "PP-OCRv4 det, FP32",
    "rec-fp16": "PP-OCRv4 rec, FP16",
}


@dataclass(frozen=True, kw_only=True)
class _Promise:
    """One ratio. `find` raises KeyError, TypeError or ValueError where the record does not have it."""

    what: str
    find: Callable[[Mapping[str, Any]], float]
    bound: float
    at_least: bool = True


def _of_rebuild(name: str, key: str) -> Callable[[Mapping[str, Any]], float]:
    def find(record: Mapping[str, Any]) -> float:
        return float(record["builds"][f"{name}-rebuilt"][key])

    return find


def _in_process(batch: int) -> tuple[_Promise, _Promise]:
    case = f"{_RESNET} {batch}x3x224x224"
    return (
        _Promise(
            what=f"in process against the bare graph loop, batch {batch}: throughput",
            find=lambda record: record["execution"][case]["ours"]["rateRatio"]["median"],
            bound=0.95,
        ),
        _Promise(
            what=f"in process against the bare graph loop, batch {batch}: p50",
            find=lambda record: record["execution"][case]["ours"]["p50Ratio"]["median"],
            bound=1.05,
            at_least=False,
        ),
    )


def _times_faster(batch: int) -> Callable[[Mapping[str, Any]], float]:
    """Return how to find how many times faster than FP16 the engine in INT8 is."""

    def find(record: Mapping[str, Any]) -> float:
        at = record["precision"]["latency"]["precision-resnet50"][f"{batch}x3x224x224"]
        return float(at["precision-resnet50-int8"]["timesFaster"]["median"])

    return find


def _least_times_faster(record: Mapping[str, Any]) -> float:
    """Return the least over all models and shapes of how many times faster than FP16 an engine in INT8 is."""
    return min(
        float(one["timesFaster"]["median"])
        for shapes in record["precision"]["latency"].values()
        for engines in shapes.values()
        for name, one in engines.items()
        if name.endswith("-int8") and f"{name.removesuffix('int8')}fp16" in engines
    )


def _joined(engine: str, key: str) -> Callable[[Mapping[str, Any]], float]:
    """Return how to find the best ratio over the settings of section batching that join requests."""

    def find(record: Mapping[str, Any]) -> float:
        found = [one for name, one in record["batching"].items() if name.startswith(engine) and "formedBatch" in one]
        return max(float(one[key]["median"]) for one in found)

    return find


_PROMISES: Final = (
    *(promise for batch in (1, 8, 32) for promise in _in_process(batch)),
    _Promise(
        what="FP32 messages over gRPC, 8 clients, batch 8, against an echo server",
        find=lambda record: record["serving"][_RESNET]["ofEcho"]["median"],
        bound=0.9,
    ),
    _Promise(
        what="UINT8 messages over gRPC, 8 clients, batch 8, 4 front ends, against the bare graph loop",
        find=lambda record: record["serving"]["resnet50-uint8, 4 front ends"]["ofBareLoop"]["median"],
        bound=0.7,
    ),
    _Promise(
        what="CUDA shared memory, 8 clients, batch 8, against the bare graph loop",
        find=lambda record: record["serving"]["resnet50-uint8 in CUDA shared memory"]["ofBareLoop"]["median"],
        bound=0.85,
    ),
    _Promise(
        what="the same with 4 front ends",
        find=lambda record: record["serving"]["resnet50-uint8 in CUDA shared memory, 4 front ends"]["ofBareLoop"][
            "median"
        ],
        bound=0.85,
    ),
    *(
        _Promise(
            what=f"a rebuild with the timing cache, times faster, {what}: {title}",
            find=_of_rebuild(name, key),
            bound=10,
        )
        for what, key in (("the builder alone", "builderTimesFaster"), ("with the start of the library", "timesFaster"))
        for name, title in _REBUILDS.items()
    ),
    _Promise(
        what="a refit as a part of a build",
        find=lambda record: record["builds"]["resnet50-refitted"]["partOfBuild"],
        bound=0.05,
        at_least=False,
    ),
    _Promise(
        what="CUDA graphs at batch 1, times faster than none: ResNet-50",
        find=lambda record: record["execution"][f"{_RESNET} 1x3x224x224"]["oursGraphGain"],
        bound=1.8,
    ),
    _Promise(
        what="the same, four instances at once, as throughput",
        find=lambda record: record["execution"][f"{_RESNET} 1x3x224x224"]["oursGraphGainOfFour"],
        bound=1.8,
    ),
    *(
        _Promise(what=f"ResNet-50, batch {batch}: INT8, times faster than FP16", find=_times_faster(batch), bound=bound)
        for batch, bound in ((32, 1.35), (64, 1.4))
    ),
    _Promise(
        what="the least of every model and shape: INT8, times faster than FP16", find=_least_times_faster, bound=1.0
    ),
    *(
        _Promise(
            what=f"requests of one image of {kind}, 32 clients, dynamic batching, against the bare graph loop at the"
            " batch size that forms",
            find=_joined(engine, "ofBareLoop"),
            bound=0.8,
        )
        for kind, engine in (("UINT8", "precision-resnet50-uint8-pixels"), ("FP32", "precision-resnet50-fp16"))
    ),
    _Promise(
        what="FP32 messages of 4.8 MB, 8 clients, against an echo server on the same transport",
        find=lambda record: record["batching"]["precision-resnet50-fp16, messages of 8 images, 0 front ends"]["ofEcho"][
            "median"
        ],
        bound=0.9,
    ),
)


def judge(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each promise with its figure; `kept` is None where the record has no figure."""
    judged: list[dict[str, Any]] = []
    for promise in _PROMISES:
        try:
            figure = float(promise.find(record))
        except (KeyError, TypeError, ValueError):
            figure = None
        kept = None
        if figure is not None:
            kept = figure >= promise.bound if promise.at_least else figure <= promise.bound
        bound = f"at {'least' if promise.at_least else 'most'} {promise.bound}"
        judged.append({"what": promise.what, "wanted": bound, "figure": figure, "kept": kept})
    return judged
