"""Stored references, as an engine takes and answers them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.engines.interface import Array

__all__ = ["read_reference"]


def read_reference(path: Path, inputs: Iterable[TensorSpec]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the inputs and the FP32 outputs of one reference, by name."""
    text = {spec.name for spec in inputs if spec.dtype is DType.BYTES}
    found: dict[str, dict[str, Array]] = {"input": {}, "output": {}}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            kind, _, name = key.partition(":")
            array = np.asarray(archive[key])
            # Strings are stored in numpy's own fixed-width types, for pickles are code.
            shaped = array.astype(object) if name in text and kind == "input" else array
            found[kind][name] = np.asarray(shaped, order="C")
    return found["input"], found["output"]
