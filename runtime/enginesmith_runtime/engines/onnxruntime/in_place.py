"""Runs with inputs and outputs in memory that another process can change while the session uses it.

A kernel that reads a value twice may check one value and use another. With integers that is an access beyond a tensor
(an index), with floats a wrong result, except where a node sorts: a sort of values that change runs out of its bounds.
So only floats stay in place, and nothing in a model that sorts.
"""

import mmap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from enginesmith_contract.tensors import DType
from enginesmith_runtime.engines.interface import Array

__all__ = ["InPlace", "has_sorting_nodes"]

_FLOATS: Final = (DType.FP16, DType.FP32, DType.FP64)

_SORTING_NODE: Final = b"\x22\x04TopK"
"""The field `op_type` of a serialised NodeProto: its tag, its length, its value."""


class InPlace:
    """Which tensors of a session may lie in a client's memory. Safe from any thread.

    Attributes:
        names: of inputs and outputs.
    """

    def __init__(self, dtypes: Mapping[str, DType]) -> None:
        self.names = frozenset(name for name, dtype in dtypes.items() if dtype in _FLOATS)

    def forget(self, names: Iterable[str]) -> None:
        """Use these no more."""
        self.names -= frozenset(names)

    @staticmethod
    def run(
        session: Any, feed: Mapping[str, Array], outputs: Sequence[str], places: Mapping[str, Array]
    ) -> list[tuple[str, Array]]:
        """Run `session` with some outputs in `places`; returns every output with its name."""
        binding = session.io_binding()
        for name, array in feed.items():
            binding.bind_cpu_input(name, array)
        for name in outputs:
            place = places.get(name)
            if place is None:
                binding.bind_output(name, "cpu")
            else:
                binding.bind_output(name, "cpu", 0, place.dtype.type, place.shape, place.ctypes.data)
        session.run_with_iobinding(binding)
        if len(places) == len(outputs):
            return [(name, places[name]) for name in outputs]
        return [
            (name, places[name] if name in places else value.numpy())
            for name, value in zip(outputs, binding.get_outputs(), strict=True)
        ]


def has_sorting_nodes(model: Path) -> bool:
    """Return whether the ONNX file has a node that sorts; may say so of one that has none."""
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_SORTING_NODE) >= 0
