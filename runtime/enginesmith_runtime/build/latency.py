"""How long one inference takes, for the manifest."""

import statistics
import time
from collections.abc import Mapping
from typing import Final

from enginesmith_runtime.engines.interface import Array, Instance

__all__ = ["time_inference"]

_RUNS: Final = 20
_SECONDS: Final = 1.0


def time_inference(instance: Instance, inputs: Mapping[str, Array], profile: int, outputs: tuple[str, ...]) -> float:
    """Return the median of up to 20 inferences within a second; the verification run before it was the warm-up."""
    seconds: list[float] = []
    deadline = time.perf_counter() + _SECONDS
    while len(seconds) < _RUNS:
        begin = time.perf_counter()
        instance.infer(inputs, profile=profile, outputs=outputs)
        end = time.perf_counter()
        seconds.append(end - begin)
        if end > deadline:
            break
    return statistics.median(seconds)
