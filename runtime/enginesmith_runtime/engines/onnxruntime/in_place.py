"""Runs a session with inputs and outputs in memory that another process can change during the run.

A kernel that reads a value twice may check one value and use another. For an integer (an index) this can be an access
outside a tensor. For a float it is only a wrong result, except in a node that sorts: a sort of changing values can also
exceed its bounds. So only floats stay in place, and nothing in a model with a sorting node.
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
"""The field `op_type` of a serialised NodeProto: tag, length, value."""


class InPlace:
    """Decides which tensors of a session may be in a client's memory. Safe from any thread.

    Attributes:
        names: Names of inputs and outputs that may be in place.
    """

    def __init__(self, dtypes: Mapping[str, DType]) -> None:
        self.names = frozenset(name for name, dtype in dtypes.items() if dtype in _FLOATS)

    def forget(self, names: Iterable[str]) -> None:
        """Stop using these tensors in place."""
        self.names -= frozenset(names)

    @staticmethod
    def run(
        session: Any, feed: Mapping[str, Array], outputs: Sequence[str], places: Mapping[str, Array]
    ) -> list[tuple[str, Array]]:
        """Run `session` with some outputs in `places`. Return all outputs by name."""
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
    """Return whether the ONNX file has a sorting node. The result can be a false positive."""
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_SORTING_NODE) >= 0
