"""Decodes an output to the answers that a client uses: a class, a yes or no, an id, or a measure.

The decoding is declared, or inferred from the outputs of the FP32 model over all samples. The result shows an inferred
decoding, because it can be wrong: nothing in a graph distinguishes class scores from an embedding.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from enginesmith_contract.errors import SpecError
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_contract.verification import Decode, OutputGate
from enginesmith_runtime.comparison.compare import as_floats, is_exact
from enginesmith_runtime.comparison.output_scales import OutputScales, learn_scales

__all__ = ["Array", "Decoding", "choose_decoding", "count_answers"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[Any]

_THRESHOLD: Final = 0.5
_SUM_TOLERANCE: Final = 1e-2
_NORM_TOLERANCE: Final = 1e-2
_LEAST_INDEX: Final = 2.0
_BACKGROUND: Final = 0.5
_LOPSIDED: Final = 0.95
_MOST_OF_IDS: Final = 0.25
_ROWS, _SEQUENCE, _MAP = 2, 3, 4
_TEXT: Final = "SUO"  # kinds of numpy's dtypes
_TIE: Final = 2
_NOT_CLASSES: Final = ("box", "coord", "embed", "feature", "landmark", "keypoint")


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How the values of one output are decoded and counted.

    Attributes:
        decode: Kind of answer; see `Decode`.
        axis: Class axis of `argmax`.
        threshold: Threshold of `threshold`.
        places: Axes along which an answer may move by one position: an edge of a map, a time step of a text.
        background: Answer of most positions, which is not counted if both have it; None if there is none.
        scales: Scales of `values`.
        tolerance: Tolerance of `values` as a share of the scale.
        inferred: Reason of the inferred decode; None if it was declared.
        unproved: Reason why an agreement of this output proves little; None if it proves enough.
    """

    decode: Decode
    axis: int = -1
    threshold: float = _THRESHOLD
    places: tuple[int, ...] = ()
    background: float | None = None
    scales: OutputScales | None = None
    tolerance: float = 0.0
    inferred: str | None = None
    unproved: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Choice:
    decode: Decode
    axis: int = -1
    why: str = ""


def choose_decoding(spec: TensorSpec, gate: OutputGate, references: Sequence[Array], tolerance: float) -> Decoding:
    """Return how one output is decoded.

    Args:
        spec: Specification of the output.
        gate: Limits of the policy for the output.
        references: Outputs of the FP32 model, one array for each sample. Shapes may differ.
        tolerance: Tolerance of `values` if the gate has no limit.

    Raises:
        SpecError: `DecodeDoesNotFit`.
    """
    values = references if is_exact(spec.dtype) else [as_floats(one, spec.dtype) for one in references]
    inferred = _infer(spec, values)
    choice = inferred if gate.decode is None else _Choice(decode=gate.decode, axis=_class_axis(inferred, values))
    if choice.decode is Decode.ARGMAX and gate.axis is not None:
        choice = _Choice(decode=choice.decode, axis=gate.axis, why=choice.why)
    _refuse_misfit(spec, choice, gate, values)
    decoding = Decoding(
        decode=choice.decode,
        axis=choice.axis,
        threshold=_THRESHOLD if gate.threshold is None else gate.threshold,
        tolerance=tolerance if gate.limit is None else gate.limit,
        inferred=choice.why or None,
    )
    if choice.decode is Decode.VALUES:
        return replace(decoding, scales=learn_scales([_finite(one) for one in values]))
    labels = [_labels(decoding, one) for one in values]
    background, unproved = _background(choice.decode, labels)
    return replace(decoding, places=_places(choice.decode, labels), background=background, unproved=unproved)


def _refuse_misfit(spec: TensorSpec, choice: _Choice, gate: OutputGate, values: Sequence[Array]) -> None:
    """Refuse a declared decoding that does not fit the output."""
    field, why = "decode", ""
    rank = min((one.ndim for one in values), default=0)
    if spec.dtype is DType.BYTES and choice.decode is not Decode.IDS:
        why = f"{choice.decode} needs numbers, and the output contains text"
    elif choice.decode is Decode.ARGMAX and not rank:
        why = "argmax needs an axis, and the output is a scalar"
    elif choice.decode is Decode.ARGMAX and choice.axis >= rank:
        field, why = "axis", f"the output has the axes 0 to {rank - 1}"
    if why:
        raise SpecError(
            "the decoding does not fit the output",
            where=f"verification.outputs.{spec.name}.{field}",
            why=why,
            remedy=f"declare another {field} instead of {getattr(gate, field)}, or omit it to infer it",
            reason="DecodeDoesNotFit",
        )


def count_answers(decoding: Decoding, actual: Array, reference: Array, dtype: DType) -> tuple[int, int]:
    """Return the number of counted answers, and how many of them are the same.

    Args:
        decoding: Decoding of the output.
        actual: Output of the engine, with the shape of the reference.
        reference: Output of the FP32 model.
        dtype: Datatype of both.
    """
    if decoding.decode is Decode.VALUES:
        return _count_values(decoding, as_floats(actual, dtype), as_floats(reference, dtype))
    exact = is_exact(dtype)
    a, b = (actual, reference) if exact else (as_floats(actual, dtype), as_floats(reference, dtype))
    found, expected = _labels(decoding, a), _labels(decoding, b)
    if decoding.decode is Decode.ARGMAX:
        found = _with_ties(decoding.axis, a, found, expected)
    if decoding.background is None:
        same = _meets(found, expected, decoding.places) & _meets(expected, found, decoding.places)
        return same.size, int(same.sum())
    seen, wanted = found != decoding.background, expected != decoding.background
    same = (~seen | _meets(found, expected, decoding.places)) & (~wanted | _meets(expected, found, decoding.places))
    counted = np.asarray(seen | wanted)
    return int(counted.sum()), int((counted & same).sum())


def _with_ties(axis: int, values: Numbers, found: Array, expected: Array) -> Array:
    """Return labels in which a tie of two values, as in quantised outputs, counts as the expected label.

    More than two equal values are not an answer: a layer that became 0 makes all classes equal.
    """
    largest = values.max(axis=axis, keepdims=True)
    members = (values == largest).sum(axis=axis)
    chosen = np.take_along_axis(values, np.expand_dims(expected, axis), axis=axis)
    tied = (np.squeeze(chosen >= largest, axis=axis)) & (members == _TIE) & (values.shape[axis] > _TIE)
    return np.asarray(np.where(tied, expected, found))


def _count_values(decoding: Decoding, a: Floats, b: Floats) -> tuple[int, int]:
    scales = decoding.scales
    bases: Any = 1.0 if scales is None else np.broadcast_to(scales.spread(scales.scales, b.ndim), b.shape)
    most = decoding.tolerance * bases
    if scales is not None:  # ids are not measures
        ids = scales.spread(scales.integral, b.ndim).astype(np.bool_) & (b == np.rint(b))
        most = np.where(ids, np.minimum(most, _MOST_OF_IDS), most)
    counted = (np.abs(a) > most) | (np.abs(b) > most)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        same = (a == b) | (np.abs(a - b) <= most)
    return int(counted.sum()), int((counted & same).sum())


def _meets(labels: Array, others: Array, places: tuple[int, ...]) -> Flags:
    """Return which labels are equal to those of `others` at the same or an adjacent position along some axes."""
    met = np.asarray(labels == others)
    for shift in product((-1, 0, 1), repeat=len(places)):
        here, there = [slice(None)] * labels.ndim, [slice(None)] * labels.ndim
        for axis, step in zip(places, shift, strict=True):
            here[axis] = slice(max(step, 0), labels.shape[axis] + min(step, 0))
            there[axis] = slice(max(-step, 0), labels.shape[axis] + min(-step, 0))
        met[tuple(here)] |= labels[tuple(here)] == others[tuple(there)]
    return met


def _labels(decoding: Decoding, values: Numbers) -> Array:
    match decoding.decode:
        case Decode.ARGMAX:
            return np.asarray(np.nan_to_num(values, nan=-np.inf).argmax(axis=decoding.axis))
        case Decode.THRESHOLD:
            return np.asarray(values > decoding.threshold)
        case _:
            return _texts(values) if values.dtype == object else values


def _places(decode: Decode, labels: Sequence[Array]) -> tuple[int, ...]:
    """Return the axes of labels whose neighbours are time steps or pixels."""
    rank = labels[0].ndim
    least = {Decode.ARGMAX: _ROWS, Decode.THRESHOLD: _MAP, Decode.IDS: _SEQUENCE}[decode]
    if rank < least or any(one.dtype.kind in _TEXT for one in labels):
        return ()
    return (1,) if rank == _ROWS else (rank - 2, rank - 1)


def _background(decode: Decode, labels: Sequence[Array]) -> tuple[float | None, str | None]:
    """Return the answer of most positions, and the reason why the answers then prove little."""
    if any(one.dtype.kind in _TEXT for one in labels):
        return None, None
    kinds, counts = np.unique(np.concatenate([np.ravel(one) for one in labels]), return_counts=True)
    if len(kinds) < _ROWS:
        same = f"all samples have the same answer ({kinds[0].item()})" if len(kinds) else "no sample has an answer"
        return None, same
    largest = int(counts.argmax())
    share = counts[largest] / counts.sum()
    if share >= _LOPSIDED and all(math.prod(one.shape[1:]) == 1 for one in labels):
        return None, f"{100 * share:.3g} % of the samples have the same answer ({kinds[largest].item()})"
    # If each row of a batch has one answer, there is no background. A rare class is a normal answer.
    if all(one.ndim < _ROWS or math.prod(one.shape[1:]) == 1 for one in labels):
        return None, None
    if decode is Decode.THRESHOLD:
        return 0.0, None
    return (float(kinds[largest]) if share > _BACKGROUND else None), None


def _infer(spec: TensorSpec, values: Sequence[Array]) -> _Choice:
    if is_exact(spec.dtype):
        return _Choice(decode=Decode.IDS, why=f"it holds {spec.dtype}")
    floats = [_finite(one) for one in values if one.size]
    if not floats:
        return _Choice(decode=Decode.VALUES, why="it is empty in all samples")
    if all(bool((one == np.rint(one)).all()) for one in floats) and max(one.max() for one in floats) >= _LEAST_INDEX:
        return _Choice(decode=Decode.IDS, why="it holds integers only")
    choice = None if all(_falls(one) for one in floats) else _infer_distribution(floats)
    if choice is not None:
        return choice
    if all(one.min() >= 0 and one.max() <= 1 for one in floats):
        return _Choice(decode=Decode.THRESHOLD, why="its values are between 0 and 1")
    return _infer_scores(spec, floats)


def _falls(values: Floats) -> bool:
    """Whether rows are in descending order, and not by chance. The first value is then always the largest."""
    if values.ndim < _ROWS or values.shape[-1] <= _TIE:
        return False
    steps = np.diff(values, axis=-1)
    return bool((steps <= 0).all() and (steps < 0).any())


def _infer_distribution(floats: Sequence[Floats]) -> _Choice | None:
    for axis in _axes(floats):
        if all(one.min() >= 0 and np.allclose(one.sum(axis=axis), 1, atol=_SUM_TOLERANCE) for one in floats):
            return _Choice(decode=Decode.ARGMAX, axis=axis, why=f"its values add up to 1 along axis {axis}")
        if all(one.max() <= 0 and np.allclose(np.exp(one).sum(axis=axis), 1, atol=_SUM_TOLERANCE) for one in floats):
            return _Choice(decode=Decode.ARGMAX, axis=axis, why=f"its exponentials add up to 1 along axis {axis}")
    return None


def _infer_scores(spec: TensorSpec, floats: Sequence[Floats]) -> _Choice:
    """Return the decoding of unbounded values: class scores if shape or name suggest it, else measures."""
    if all(_falls(one) for one in floats):
        return _Choice(decode=Decode.VALUES, why="its rows are in falling order, as those of TopK are")
    name, rank = spec.name.lower(), floats[0].ndim
    axes = tuple(_axes(floats))
    if "logit" in name and axes:
        axis = axes[0] if rank <= _SEQUENCE else axes[-1]
        return _Choice(decode=Decode.ARGMAX, axis=axis, why=f"its name has 'logit'; axis {axis} is that of the classes")
    if rank != _ROWS or not axes or any(word in name for word in _NOT_CLASSES):
        return _Choice(decode=Decode.VALUES, why="its values have no bounds, and nothing names them as class scores")
    if all(np.allclose(np.linalg.norm(one, axis=1), 1, atol=_NORM_TOLERANCE) for one in floats):
        return _Choice(decode=Decode.VALUES, why="its rows have the length 1, as embeddings do")
    scales = learn_scales(floats)
    if scales.axis == 1 and np.ptp(scales.scales) > 0:
        return _Choice(decode=Decode.VALUES, why="its columns have scales of their own, as quantities of several units")
    return _Choice(decode=Decode.ARGMAX, axis=1, why="it has one row of values for each sample, as class scores do")


def _axes(values: Sequence[Array]) -> Iterator[int]:
    """Yield possible class axes, the last one first. The batch axis and axes of varying size are excluded."""
    rank = values[0].ndim
    for axis in dict.fromkeys((rank - 1, 1)):
        if 0 < axis < rank and len({one.shape[axis] for one in values}) == 1 and values[0].shape[axis] > 1:
            yield axis


def _class_axis(inferred: _Choice, values: Sequence[Array]) -> int:
    """Return the class axis of a declared `argmax`: the inferred axis, else the channels of a map, else the last."""
    if inferred.decode is Decode.ARGMAX:
        return inferred.axis
    return 1 if values and values[0].ndim > _SEQUENCE else -1


def _finite(values: Array) -> Floats:
    return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _texts(values: Array) -> Array:
    return np.array([one if isinstance(one, bytes) else str(one).encode() for one in values.ravel()]).reshape(
        values.shape
    )
