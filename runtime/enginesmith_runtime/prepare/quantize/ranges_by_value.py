"""Looks up ranges of a calibration for the values of a graph."""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx

from enginesmith_contract.errors import ModelError

__all__ = ["RangesByValue"]


class RangesByValue:
    """Ranges of the values in a cast model. A Cast between float types does not change a range."""

    def __init__(self, graph: onnx.GraphProto, ranges: Mapping[str, float]) -> None:
        self._ranges = ranges
        casts = [node for node in graph.node if node.op_type == "Cast"]
        self._sources = {node.output[0]: node.input[0] for node in casts}
        self._copies: dict[str, list[str]] = {}
        for node in casts:
            self._copies.setdefault(node.input[0], []).append(node.output[0])

    def of(self, name: str) -> float:
        """Return the largest absolute value that a value must represent.

        Raises:
            enginesmith_contract.errors.ModelError: `RangeMissing`.
        """
        known = next((one for one in self._spellings(name) if one in self._ranges), "")
        amax = self._ranges.get(known, float("nan"))
        if not (np.isfinite(amax) and amax > 0):
            found = "it has no range" if not known else f"its range is {amax:g}"
            raise ModelError(
                f"the value {name} cannot be quantised",
                where="precision.calibration",
                why=found,
                remedy="calibrate with data in which it is not constant, or keep the nodes that read it",
                reason="RangeMissing",
            )
        return float(amax)

    def _spellings(self, name: str) -> Iterator[str]:
        source: str | None = name
        while source is not None:
            yield source
            # An output of the graph keeps its name and FP32, and its producer's output has another name.
            yield from self._copies.get(source, ())
            source = self._sources.get(source)
