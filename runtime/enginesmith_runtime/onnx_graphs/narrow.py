"""The 16-bit formats for computation: FP16 has more digits, and BF16 has the range of FP32."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from onnx import TensorProto, helper

from enginesmith_contract.backends import Precision

__all__ = ["BF16", "FP16", "Narrow", "narrow_of"]


@dataclass(frozen=True, kw_only=True)
class Narrow:
    """One format.

    Attributes:
        title: Name in sentences.
        dtype: Datatype in ONNX.
        schema: Type in operator schemas.
        largest: Largest number.
        tiny: Smallest normal number.
        unit: Largest relative rounding error.
        whole: Number up to which all integers are exact.
        wide: Whether its range is that of FP32, so that ordinary values do not overflow.
        phrases: Replacements that turn a sentence about FP16 into one about this format.
    """

    title: str
    dtype: int
    schema: str
    largest: float
    tiny: float
    unit: float
    whole: int
    wide: bool = False
    phrases: Mapping[str, str] = field(default_factory=dict)

    @property
    def numpy(self) -> "np.dtype[Any]":
        """Return the dtype of arrays."""
        return np.dtype(helper.tensor_dtype_to_np_dtype(self.dtype))

    @property
    def coarseness(self) -> float:
        """Return its rounding error relative to that of FP16."""
        return self.unit * 2.0**11

    def said(self, words: str) -> str:
        """Return a sentence about FP16 as one about this format."""
        for phrase, other in self.phrases.items():
            words = words.replace(phrase, other)
        return words

    def said_of(self, reasons: Mapping[str, str]) -> dict[str, str]:
        """Return reasons by node, as sentences about this format."""
        return {name: self.said(reason) for name, reason in reasons.items()}


FP16: Final = Narrow(
    title="FP16",
    dtype=int(TensorProto.FLOAT16),
    schema="tensor(float16)",
    largest=65504.0,
    tiny=2.0**-14,
    unit=2.0**-11,
    whole=2048,
)
BF16: Final = Narrow(
    title="BF16",
    dtype=int(TensorProto.BFLOAT16),
    schema="tensor(bfloat16)",
    largest=float((2.0 - 2.0**-7) * 2.0**127),
    tiny=2.0**-126,
    unit=2.0**-8,
    whole=256,
    wide=True,
    phrases={
        "it reads products, sums or integers that may be above 65504": "it reads integers, and BF16 holds few of them",
        "integers up to 2048": "integers up to 256",
        "integers above 2048": "integers above 256",
        "numbers above 2048": "numbers above 256",
        "a number above 256": "a number above 32",
        "11 bits": "8 bits",
        "steps of 1/128": "steps of 1/16",
        "FP16": "BF16",
    },
)


def narrow_of(precision: Precision) -> Narrow:
    """Return the format of a precision that a graph is cast to."""
    return BF16 if precision is Precision.BF16 else FP16
