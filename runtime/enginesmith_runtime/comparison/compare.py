"""Compares one output of one run with its reference: the largest difference, its position and both values.

Measures are judged by ratio, relative to the scale of their slice. Integers, booleans and text are judged by equality.
Integers in slices of floats are also judged by equality if nearly all references of the slice are integers (class ids).
If an engine gives fractions for them, a value that is off by 1/2 is another id, all are wrong if all are off by 1/8,
and the ratio is judged as well. NaN and infinity must be at the same positions as in the reference. The other values
are judged.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.comparison.output_scales import Flags, Floats, OutputScales, learn_scales

__all__ = ["OTHER_SHAPE", "Comparison", "as_floats", "compare", "find_unlike", "is_exact", "learn_all_scales"]

Array = npt.NDArray[np.generic]

OTHER_SHAPE: Final = "its shape is"
"""Start of the result of `find_unlike` for an output with another shape."""

_ENDLESS: Final = 1e30  # counts as infinity, because no measure is as large
_FP16_MAX: Final = 65504.0
_OTHER_ID: Final = 0.5
_SHIFTED: Final = 0.125  # all ids of an answer
_WHOLE_BITS: Final = {
    DType.FP64: 52,
    DType.FP32: 23,
    DType.FP16: 10,
    DType.BF16: 7,
}  # no fraction from 2^n on


class Comparison(NamedTuple):
    """Result for one output of one run, or for one of its two parts.

    Attributes:
        difference: Largest ratio; infinity if the outputs cannot be compared.
        scale: Largest absolute value of the reference.
        found: Reason why the outputs cannot be compared; None if they can.
        mismatches: Share of values that are not equal; None if values are judged by ratio.
        worst: Text with the worst element and both values; None if nothing differs.
    """

    difference: float
    scale: float
    found: str | None = None
    mismatches: float | None = None
    worst: str | None = None


def is_exact(dtype: DType) -> bool:
    """Whether values of this dtype are judged by equality."""
    return dtype not in _WHOLE_BITS


def as_floats(array: Array, dtype: DType) -> Floats:
    """Return values as float64. BF16 is passed as its raw bits."""
    if dtype is DType.BF16 and array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64)


def compare(actual: Array, reference: Array, dtype: DType, scales: OutputScales | None) -> tuple[Comparison, ...]:
    """Return the part that is judged by ratio, the part that is judged by equality, or both.

    Args:
        actual: Output of the engine; BF16 as its raw bits.
        reference: Output of the FP32 model.
        dtype: Datatype of `actual`.
        scales: Scales of a float output (see `learn_scales`); None for other outputs.
    """
    found = find_unlike(actual, reference, dtype)
    if found is not None:
        return (Comparison(math.inf, 1.0, found),)
    if scales is None:
        return (_compare_exactly(actual, reference, dtype),)
    a, b = as_floats(actual, dtype), as_floats(reference, dtype)
    indices, exact = _index_like(a, b, dtype, scales)
    parts = []
    if indices.any():
        parts.append(_count_mismatches(a, b, indices))
    if not exact.all() or not parts:
        parts.append(_largest_ratio(a, b, ~exact, scales))
    return tuple(parts)


def find_unlike(actual: Array, reference: Array, dtype: DType) -> str | None:
    """Return why two outputs cannot be compared (another shape, or NaN or infinity in one of them), or None."""
    if actual.shape != reference.shape:
        return f"{OTHER_SHAPE} {list(actual.shape)}, the reference's {list(reference.shape)}"
    if is_exact(dtype):
        return None
    a, b = as_floats(actual, dtype), as_floats(reference, dtype)
    unlike = _unlike(a, b)
    if not unlike.any():
        return None
    where = _first(unlike)
    return (
        f"{_element(where)} is {a[where]:g} where the reference is {b[where]:g}"
        f" (NaN or infinity differs in {int(unlike.sum())} of {a.size} values)"
    )


def learn_all_scales(outputs: Iterable[TensorSpec], paths: Sequence[Path]) -> dict[str, OutputScales]:
    """Return the scales of every float output over all references. Only one output is in memory at a time.

    Args:
        outputs: Outputs of the model or engine.
        paths: Paths of .npz files with an array `output:<name>` for each output.
    """
    scales = {}
    for spec in outputs:
        if is_exact(spec.dtype) or not paths:
            continue
        answers = []
        for path in paths:
            with np.load(path, allow_pickle=False) as archive:
                values = as_floats(np.asarray(archive[f"output:{spec.name}"]), spec.dtype)
            answers.append(values if spec.dtype is DType.FP64 else values.astype(np.float32))
        scales[spec.name] = learn_scales(answers)
    return scales


def _compare_exactly(actual: Array, reference: Array, dtype: DType) -> Comparison:
    if dtype is DType.BYTES:
        same = np.array([_as_bytes(a) == _as_bytes(b) for a, b in zip(actual.ravel(), reference.ravel(), strict=True)])
        wrong = ~same.astype(np.bool_)
        if not wrong.any():
            return Comparison(0.0, 1.0, mismatches=0.0)
        return Comparison(1.0, 1.0, mismatches=float(wrong.mean()), worst=f"{int(wrong.sum())} of {wrong.size} texts")
    wrong = np.asarray(actual != reference)
    a, b = actual.astype(np.float64), reference.astype(np.float64)
    scale = float(np.abs(b).max(initial=0.0))
    if not wrong.any():
        return Comparison(0.0, scale, mismatches=0.0)
    errors = np.where(wrong, np.abs(a - b), -1.0)
    where = _largest(errors)
    return Comparison(
        float(errors[where]) / max(scale, 1.0),
        scale,
        mismatches=float(wrong.mean()),
        worst=_in_words(where, actual[where].item(), reference[where].item()),
    )


def _unlike(a: Floats, b: Floats) -> Flags:
    """Return the positions at which one of the two is NaN or infinite and the other is not the same."""
    endless = np.isfinite(b) & (np.abs(b) >= _ENDLESS)
    alike = (np.abs(a) >= _FP16_MAX) & (np.sign(a) == np.sign(b))
    finite = np.isfinite(a) & np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b)) | np.where(endless, alike, finite)
    return np.asarray(~same)


def _index_like(a: Floats, b: Floats, dtype: DType, scales: OutputScales) -> tuple[Flags, Flags]:
    """Return which elements are ids, and for which of these the output also has integers."""
    none = np.zeros(b.shape, np.bool_)
    slices = scales.integers(_WHOLE_BITS[dtype])
    if not slices.any():
        return none, none
    others = tuple(axis for axis in range(a.ndim) if axis != scales.axis)
    answered = ((a == np.rint(a)) | ~np.isfinite(a) | (b != np.rint(b))).all(axis=others, keepdims=True)
    varied = answered | ~scales.spread(scales.constant, b.ndim).astype(np.bool_)
    indices = np.asarray(scales.spread(slices, b.ndim) & varied & ((b == np.rint(b)) | ~np.isfinite(b)), np.bool_)
    return indices, np.asarray(indices & answered, np.bool_)


def _count_mismatches(a: Floats, b: Floats, part: Flags) -> Comparison:
    with np.errstate(invalid="ignore"):  # infinity less infinity
        errors = np.abs(a - b)
    finite = part & np.isfinite(b)
    shifted = float(errors[finite].min(initial=np.inf)) >= _SHIFTED
    wrong = part & (errors >= (_SHIFTED if shifted else _OTHER_ID))
    scale = float(np.abs(b[finite]).max(initial=0.0))
    if not wrong.any():
        return Comparison(0.0, scale, mismatches=0.0)
    errors = np.where(wrong, errors, -1.0)
    where = _largest(errors)
    words = _in_words(where, float(a[where]), float(b[where]))
    return Comparison(
        float(errors[where]) / max(scale, 1.0), scale, mismatches=float(wrong.sum() / part.sum()), worst=words
    )


def _largest_ratio(a: Floats, b: Floats, part: Flags, scales: OutputScales) -> Comparison:
    measures = part & np.isfinite(b) & (np.abs(b) < scales.masks_from)
    peak = float(np.abs(b[measures]).max(initial=0.0))
    bases = np.broadcast_to(scales.spread(scales.scales, b.ndim), b.shape)
    # A mask is compared relative to itself. One that stands for infinity was compared with the infinities.
    masks = part & np.isfinite(b) & ~measures & (np.abs(b) < _ENDLESS)
    bases = np.where(masks, np.abs(b), bases)
    judged = measures | masks
    with np.errstate(invalid="ignore"):  # infinity less infinity, which is not judged
        errors = np.where(judged, np.abs(a - b) / bases, -1.0)
    if not judged.any():
        return Comparison(0.0, peak)
    where = _largest(errors)
    difference = float(errors[where])
    if difference == 0:
        return Comparison(0.0, peak)
    words = _in_words(where, float(a[where]), float(b[where]))
    if scales.axis is not None and not masks[where] and np.ptp(scales.scales) > 0:
        words += f"; axis {scales.axis}, index {where[scales.axis]} is judged by its own scale, {bases[where]:.3g}"
    return Comparison(difference, peak, worst=words)


def _first(flags: Flags) -> tuple[int, ...]:
    return tuple(int(index) for index in np.unravel_index(int(flags.argmax()), flags.shape))


def _largest(errors: Floats) -> tuple[int, ...]:
    return tuple(int(index) for index in np.unravel_index(int(errors.argmax()), errors.shape))


def _in_words(where: tuple[int, ...], actual: float, expected: float) -> str:
    return f"{_element(where)} is {_number(actual)}, the reference {_number(expected)}"


def _element(where: tuple[int, ...]) -> str:
    return f"element {list(where)}" if where else "the value"


def _number(value: float) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
