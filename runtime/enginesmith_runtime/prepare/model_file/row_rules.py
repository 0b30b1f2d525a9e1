"""Position of the rows after a node that keeps them separate. Other operators have no rule here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnx

from enginesmith_runtime.prepare.model_file.row_axes import NodeView
from enginesmith_runtime.prepare.model_file.row_values import Dim, RowValue, broadcast, product, reshaped

__all__ = ["PLACES", "Call", "Place"]

_LENGTHS: Final = 4
_STATES: Final = (5, 6)
_MATRIX: Final = 2

Place = tuple[Sequence[Dim | None], int]
"""The shape of an output (None for an unknown size) and the axis of the rows."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A node and its inputs (None for an omitted one). At least one input has rows, and those with rows have a rank."""

    node: onnx.NodeProto
    inputs: Sequence[RowValue | None]
    view: NodeView

    @property
    def fed(self) -> dict[int, RowValue]:
        """Return the inputs with rows, by index."""
        return {at: one for at, one in enumerate(self.inputs) if one is not None and one.rows is not None}

    def only(self, at: int = 0) -> RowValue | None:
        """Return the input `at` if no other input has rows."""
        return self.fed[at] if set(self.fed) == {at} else None

    def numbers(self, attribute: str, index: int = 99) -> list[int] | None:
        """See `NodeView.numbers`."""
        return self.view.numbers(self.node, attribute, index)

    def target(self, at: int) -> Sequence[Dim | None] | None:
        """Return the elements of an input that follow from shapes."""
        one = self.inputs[at] if at < len(self.inputs) else None
        return None if one is None else one.numbers


def _dims(value: RowValue) -> tuple[Dim, ...]:
    return value.dims or ()


def _rows(value: RowValue) -> Dim:
    return _dims(value)[value.rows or 0]


def _elementwise(call: Call) -> Place | None:
    used = [one for one in call.inputs if one is not None]
    shapes = [one.dims for one in used if one.dims is not None]
    places = {(one.from_end, _rows(one)) for one in call.fed.values()}
    if len(shapes) < len(used) or len(places) != 1:
        return None
    ((from_end, rows),) = places
    sizes = broadcast(shapes, from_end, rows)
    return sizes, len(sizes) - from_end


def _first(call: Call) -> Place | None:
    """Return the place of the first input for operators that keep the rank. Other sizes may change."""
    value = call.only()
    return None if value is None else (_only_rows(value), value.rows or 0)


def _unchanged(call: Call) -> Place | None:
    value = call.only()
    return None if value is None else (_dims(value), value.rows or 0)


def _running(call: Call) -> Place | None:
    return _unchanged(call) if call.numbers("", 1) is not None else None


def _only_rows(value: RowValue) -> list[Dim | None]:
    return [size if axis == value.rows else None for axis, size in enumerate(_dims(value))]


def _along(call: Call) -> Place | None:
    """Return the first input's place. Sizes are equal except along an axis."""
    value, said = call.only(), call.numbers("axis")
    if value is None:
        return None
    default = -1 if call.node.op_type == "TopK" else 0
    axis = (said or [default])[0] % len(_dims(value))
    return [None if at == axis else size for at, size in enumerate(_dims(value))], value.rows or 0


def _sliced(call: Call) -> Place | None:
    value, axes = call.only(), call.numbers("axes", 3)
    starts = call.numbers("starts", 1)
    if value is None or (axes is None and (call.view.has(call.node, 3) or starts is None)):
        return None
    rank = len(_dims(value))
    cut = {axis % rank for axis in (axes if axes is not None else range(len(starts or ())))}
    if value.rows in cut and (starts is None or call.numbers("ends", 2) is None):
        return None
    if value.rows in cut and call.view.has(call.node, 4) and call.numbers("steps", 4) is None:
        return None
    return [None if at in cut and at != value.rows else size for at, size in enumerate(_dims(value))], value.rows or 0


def _padded(call: Call) -> Place | None:
    axes_known = not call.view.has(call.node, 3) or call.numbers("", 3) is not None
    return _first(call) if call.numbers("pads", 1) is not None and axes_known else None


def _resized(call: Call) -> Place | None:
    value = call.only()
    modes = {one.name: one.s for one in call.node.attribute if one.type == onnx.AttributeProto.STRING}
    if value is None or modes.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        return None
    rows, rank = value.rows or 0, len(_dims(value))
    axes = [axis % rank for axis in call.numbers("axes") or range(rank)]
    if rows not in axes:
        return _first(call)
    if modes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        return None
    at = axes.index(rows)
    floats = next((list(one.floats) for one in call.node.attribute if one.name == "scales"), None)
    scales = next((call.view.constants.get(call.node.input[i]) for i in (2, 1) if call.view.has(call.node, i)), None)
    given = floats or (list(scales) if scales is not None else [])
    sizes = call.target(3)
    keeps = (sizes is not None and len(sizes) > at and sizes[at] == _rows(value)) or (
        not call.view.has(call.node, 3) and len(given) == len(axes) and given[at] == 1
    )
    return _first(call) if keeps else None


def _reduced(call: Call) -> Place | None:
    value = call.only()
    if value is None:
        return None
    dims, rows = _dims(value), value.rows or 0
    if call.node.op_type in {"ArgMax", "ArgMin"}:
        axes = call.numbers("axis") or [0]
    else:
        said = call.numbers("axes", 1)
        if not said:  # unknown, all axes (which mixes), or none
            is_known = said is not None or not call.view.has(call.node, 1)
            return (dims, rows) if is_known and (call.numbers("noop_with_empty_axes") or [0])[0] else None
        axes = said
    gone = {axis % len(dims) for axis in axes}
    if (call.numbers("keepdims") or [1])[0]:
        return [Dim(1) if axis in gone else size for axis, size in enumerate(dims)], rows
    return _without(dims, rows, gone)


def _without(dims: Sequence[Dim], rows: int, gone: set[int]) -> Place | None:
    if rows in gone:
        return None
    return [size for axis, size in enumerate(dims) if axis not in gone], rows - sum(axis < rows for axis in gone)


def _squeezed(call: Call) -> Place | None:
    value, axes = call.only(), call.numbers("axes", 1)
    if value is None or not axes:
        return None
    return _without(_dims(value), value.rows or 0, {axis % len(_dims(value)) for axis in axes})


def _unsqueezed(call: Call) -> Place | None:
    value, axes = call.only(), call.numbers("axes", 1)
    if value is None or axes is None:
        return None
    rank = len(_dims(value)) + len(axes)
    added = {axis % rank for axis in axes}
    kept = [axis for axis in range(rank) if axis not in added]
    sizes: list[Dim | None] = [Dim(1)] * rank
    for axis, size in zip(kept, _dims(value), strict=True):
        sizes[axis] = size
    return sizes, kept[value.rows or 0]


def _transposed(call: Call) -> Place | None:
    value = call.only()
    if value is None:
        return None
    order = call.numbers("perm") or list(reversed(range(len(_dims(value)))))
    return [_dims(value)[axis] for axis in order], order.index(value.rows or 0)


def _reshaped(call: Call) -> Place | None:
    value, target = call.only(), call.target(1)
    said = call.numbers("shape")
    if said is not None:
        target = [Dim(size) for size in said]
    if value is None or target is None:
        return None
    return reshaped(value, target, is_zero_kept=bool((call.numbers("allowzero") or [0])[0]))


def _flattened(call: Call) -> Place | None:
    value, said = call.only(), call.numbers("axis")
    if value is None:
        return None
    dims = _dims(value)
    axis = 1 if said is None else said[0] + len(dims) if said[0] < 0 else said[0]
    return reshaped(value, [product(dims[:axis]), product(dims[axis:])], is_zero_kept=True)


def _expanded(call: Call) -> Place | None:
    value, target = call.only(), call.target(1)
    if value is None or target is None:
        return None
    place = value.from_end
    if len(target) >= place and target[-place] not in {Dim(1), _rows(value)}:
        return None
    sizes: list[Dim | None] = [None] * max(len(target), len(_dims(value)))
    sizes[-place] = _rows(value)
    return sizes, len(sizes) - place


def _tiled(call: Call) -> Place | None:
    value, repeats = call.only(), call.numbers("", 1)
    return _first(call) if value is not None and repeats is not None and repeats[value.rows or 0] == 1 else None


def _one_hot(call: Call) -> Place | None:
    value = call.only()
    if value is None:
        return None
    sizes: list[Dim | None] = list(_dims(value))
    axis = (call.numbers("axis") or [-1])[0] % (len(sizes) + 1)
    sizes.insert(axis, None)
    rows = value.rows or 0
    return sizes, rows + 1 if axis <= rows else rows


def _summed(call: Call) -> Place | None:
    """Return the place after an Einsum with one label for the rows of all inputs and of its output."""
    equation = next((one.s.decode() for one in call.node.attribute if one.name == "equation"), "").replace(" ", "")
    terms, arrow, output = equation.partition("->")
    labels = terms.split(",")
    if not arrow or "." in equation or len(labels) != len(call.inputs):
        return None
    if any(len(labels[at]) != len(_dims(one)) for at, one in call.fed.items()):
        return None
    found = {(labels[at][one.rows or 0], _rows(one)) for at, one in call.fed.items()}
    if len(found) != 1:
        return None
    ((label, rows),) = found
    if output.count(label) != 1 or any(term.count(label) > 1 for term in labels):
        return None
    sizes = {one: size for at, value in call.fed.items() for one, size in zip(labels[at], _dims(value), strict=True)}
    return [rows if one == label else sizes.get(one) for one in output], output.index(label)


def _gathered(call: Call) -> Place | None:
    axis = (call.numbers("axis") or [0])[0]
    table, picks = call.inputs[:2]
    if table is None or picks is None or table.dims is None or picks.dims is None or len(call.fed) != 1:
        return None
    axis %= len(table.dims)
    sizes = [*table.dims[:axis], *picks.dims, *table.dims[axis + 1 :]]
    if picks.rows is not None:
        return sizes, axis + picks.rows
    rows = table.rows or 0
    return sizes, rows if rows < axis else rows + len(picks.dims) - 1


def _joined(call: Call) -> Place | None:
    places = {(one.rows, _rows(one), len(_dims(one))) for one in call.fed.values()}
    if len(places) != 1:
        return None
    ((rows, size, rank),) = places
    first = next(iter(call.fed.values()))
    axis = (call.numbers("axis") or [1])[0] % rank
    return [size if at == rows else None if at == axis else one for at, one in enumerate(_dims(first))], rows or 0


def _product(call: Call) -> Place | None:
    shapes = [one.dims for one in call.inputs if one is not None and one.dims is not None]
    places = {(one.from_end, _rows(one)) for one in call.fed.values()}
    if len(shapes) != _MATRIX or len(places) != 1 or any(len(shape) < _MATRIX for shape in shapes):
        return None
    ((from_end, rows),) = places
    if len(call.fed) == _MATRIX and from_end <= _MATRIX:
        return None
    left, right = shapes
    inner = [(*left[:-1], right[-1]), (*right[:-2], left[-2], right[-1])]
    sizes = broadcast(inner, from_end, rows)
    sizes[-2:] = [left[-2], right[-1]]
    return sizes, len(sizes) - from_end


def _gemm(call: Call) -> Place | None:
    fed, right = call.fed, call.inputs[1]
    left = fed.get(0)
    if left is None or 1 in fed or left.rows != 0 or right is None:
        return None
    added = fed.get(2)
    if added is not None and (added.from_end, _rows(added)) != (left.from_end, _rows(left)):
        return None
    width = None
    if right.dims is not None:
        width = right.dims[0 if (call.numbers("transB") or [0])[0] else 1]
    return [_rows(left), width], 0


def _paired(call: Call) -> Place | None:
    """Return the place if the rows are the first axis of all inputs."""
    places = {(one.rows, _rows(one)) for one in call.fed.values()}
    value = call.fed.get(0)
    if value is None or len(places) != 1 or value.rows != 0 or len(call.fed) < len(call.inputs):
        return None
    if call.node.op_type == "GridSample":
        return _only_rows(value), 0
    return (list(_dims(call.inputs[1])), 0) if call.inputs[1] is not None else None


def _recurrent(call: Call) -> Place | None:
    layout = (call.numbers("layout") or [0])[0]
    expected = {0: 1 - layout, _LENGTHS: 0, **dict.fromkeys(_STATES, 1 - layout)}
    if 0 not in call.fed or any(expected.get(at) != one.rows for at, one in call.fed.items()):
        return None
    if len({_rows(one) for one in call.fed.values()}) != 1:
        return None
    rows = _rows(call.fed[0])
    return ([rows, None, None, None], 0) if layout else ([None, None, rows, None], 2)


_ELEMENTWISE: Final = (
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd", "BitwiseNot",
    "BitwiseOr", "BitwiseXor", "Ceil", "Celu", "Cos", "Cosh", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu",
    "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal",
    "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum",
    "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
)  # fmt: skip
_OF_THE_FIRST: Final = (
    "BatchNormalization", "Cast", "CastLike", "Clip", "DequantizeLinear", "Dropout", "GroupNormalization",
    "Hardmax", "InstanceNormalization", "LRN", "LayerNormalization", "LogSoftmax", "LpNormalization",
    "MeanVarianceNormalization", "QuantizeLinear", "RMSNormalization", "Softmax", "Trilu",
)  # fmt: skip
_RESIZING: Final = (
    "AveragePool", "Conv", "ConvInteger", "ConvTranspose", "DepthToSpace", "GlobalAveragePool", "GlobalLpPool",
    "GlobalMaxPool", "LpPool", "MaxPool", "QLinearConv", "SpaceToDepth",
)  # fmt: skip
_REDUCING: Final = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare", "ArgMax", "ArgMin",
)  # fmt: skip
PLACES: Final[Mapping[str, Callable[[Call], Place | None]]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_OF_THE_FIRST, _unchanged),
    **dict.fromkeys(_RESIZING, _first),
    **dict.fromkeys(_REDUCING, _reduced),
    **dict.fromkeys(("Split", "TopK"), _along),
    **dict.fromkeys(("GatherElements", "GridSample"), _paired),
    **dict.fromkeys(("Resize", "Upsample"), _resized),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    "Concat": _joined,
    "CumSum": _running,
    "Einsum": _summed,
    "Expand": _expanded,
    "Flatten": _flattened,
    "Gather": _gathered,
    "Gemm": _gemm,
    "MatMul": _product,
    "OneHot": _one_hot,
    "Pad": _padded,
    "Reshape": _reshaped,
    "Slice": _sliced,
    "Squeeze": _squeezed,
    "Tile": _tiled,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
}
