"""Measures the damage of each node to the outputs if only this node is quantised.

All other nodes compute in FP32, because an already noisy network hardly shows the effect of one more node.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from enginesmith_contract.auto_keep import Sensitivity
from enginesmith_contract.tensors import TensorSpec
from enginesmith_runtime.comparison.compare import as_floats, is_exact
from enginesmith_runtime.prepare.jobs import Feed
from enginesmith_runtime.prepare.quantize.weighted_nodes import find_shortcuts, find_weighted
from enginesmith_runtime.prepare.runs.inputs import Array
from enginesmith_runtime.prepare.runs.reference_runs import open_exact, run_session

__all__ = ["Candidates", "rank"]

Sample = tuple[Mapping[str, Array], Mapping[str, Array]]
"""Inputs and FP32 outputs."""


class Candidates:
    """Nodes of a normal form that are quantised for TensorRT and could be kept.

    Attributes:
        sizes: Size of each node's weight in bytes of INT8 or FP8, by name; 0 for Adds with a quantised shortcut.
    """

    def __init__(self, normal: onnx.GraphProto, named: Mapping[str, str]) -> None:
        weighted = [one for one in find_weighted(normal) if one.node.name not in named]
        self.sizes = {one.node.name: int(np.prod(one.weight.dims, dtype=np.int64)) for one in weighted}
        makers = {name: node.name for node in normal.node for name in node.output}
        nodes = {node.name: node for node in normal.node}
        self._convolutions = {
            name: makers[nodes[name].input[1 - index]]
            for name, index in find_shortcuts(normal, self.sizes.keys()).items()
            if name not in named
        }
        self.sizes |= dict.fromkeys(self._convolutions, 0)

    def with_alone(self, name: str) -> frozenset[str]:
        """Return the nodes to quantise for the measurement of one node. An Add also needs its convolution."""
        return frozenset({name, self._convolutions.get(name, name)})

    def before(self, name: str) -> str | None:
        """Return the convolution of an Add, because its damage does not count for the Add."""
        return self._convolutions.get(name)


def rank(
    candidates: Candidates,
    samples: Sequence[Sample],
    place: Callable[[frozenset[str]], onnx.ModelProto],
    *,
    weights: Path,
    feed: Feed,
    is_over: Callable[[], bool],
    tick: Callable[[float], None],
) -> tuple[Sensitivity, ...]:
    """Return the damage of every candidate. If the time is over before, the mean of the others is used.

    Args:
        candidates: Candidates of the model.
        samples: A few samples.
        place: Function that returns the model with all candidates quantised except its argument.
        weights: Folder of the external weights of these models.
        feed: Names and dtypes of inputs and outputs.
        is_over: Function that returns whether the time is over.
        tick: Function that receives the completed share.
    """
    names = [spec.name for spec in feed.facts.outputs]
    damages: dict[str, float] = {}
    for done, name in enumerate(candidates.sizes):
        if is_over():
            break
        tick(done / len(candidates.sizes))
        session = open_exact(place(frozenset(candidates.sizes) - candidates.with_alone(name)), weights, feed.threads)
        damages[name] = sum(
            _damage(dict(zip(names, run_session(session, names, feed, inputs), strict=True)), want, feed.facts.outputs)
            for inputs, want in samples
        ) / len(samples)
    unknown = sum(damages.values()) / max(len(damages), 1)
    return tuple(
        Sensitivity(
            node=name,
            damage=max(damages.get(name, unknown) - damages.get(candidates.before(name) or "", 0.0), 0.0),
            size_bytes=size,
        )
        for name, size in candidates.sizes.items()
    )


def _damage(have: Mapping[str, Array], want: Mapping[str, Array], specs: Sequence[TensorSpec]) -> float:
    """Return the sum of noise over signal of all outputs. For exact outputs it is the share that differs."""
    total = 0.0
    for spec in specs:
        actual, reference = have[spec.name], want[spec.name]
        if actual.shape != reference.shape:
            total += 1.0
        elif is_exact(spec.dtype):
            total += float(np.mean(actual != reference)) if reference.size else 0.0
        else:
            a, b = as_floats(actual, spec.dtype), as_floats(reference, spec.dtype)
            finite = np.isfinite(a) & np.isfinite(b)
            power = float(np.sum(b[finite] ** 2))
            total += float(np.sum((a[finite] - b[finite]) ** 2)) / power if power else 0.0
    return total
