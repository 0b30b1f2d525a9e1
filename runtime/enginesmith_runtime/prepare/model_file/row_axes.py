"""Axes along which operators work. A node that works along the rows mixes them, or may mix them for some values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnx

from enginesmith_runtime.onnx_graphs.constants import Values

__all__ = ["AXES", "NodeView", "Rule"]

_TO_THE_END: Final = 2.0**31 - 1
_OPSET_OF_ONE_AXIS: Final = 13  # before it, Softmax worked on all axes from its axis on


@dataclass(frozen=True, kw_only=True)
class NodeView:
    """Facts about a graph for the rules: its opset, and small constants by name."""

    opset: int
    constants: Mapping[str, Values]

    def numbers(self, node: onnx.NodeProto, attribute: str, index: int) -> list[int] | None:
        """Return the integers of an attribute or, in later opsets, of an input, or None if missing or not constant."""
        for one in node.attribute:
            if one.name == attribute:
                return list(one.ints) or [int(one.i)]
        if index >= len(node.input) or node.input[index] not in self.constants:
            return None
        return [int(value) for value in self.constants[node.input[index]]]

    def has(self, node: onnx.NodeProto, index: int) -> bool:
        """Whether a node has this input."""
        return index < len(node.input) and bool(node.input[index])


Rule = Callable[[onnx.NodeProto, int, int, NodeView], Sequence[int]]
"""Function of a node, the index of an input, its rank and the view. It returns the axes along which the node mixes."""


def _reduced(node: onnx.NodeProto, index: int, rank: int, view: NodeView) -> Sequence[int]:
    axes = view.numbers(node, "axes", 1)
    if index > 0 or (axes is None and view.has(node, 1)):
        return ()
    keeps = (view.numbers(node, "noop_with_empty_axes", 99) or [0])[0]
    return axes or (() if keeps else range(rank))


def _axis(default: int, only: int | None = 0) -> Rule:
    """Return the rule of an operator with an axis. `only` is the index of its input, or None for all inputs."""

    def axes(node: onnx.NodeProto, index: int, rank: int, view: NodeView) -> Sequence[int]:
        del rank
        if only is not None and index != only:
            return ()
        said = view.numbers(node, "axis", 99)
        return [default] if said is None else said

    return axes


def _from(first: int) -> Rule:
    return lambda _node, index, rank, _view: range(first, rank) if index == 0 else ()


def _softmax(node: onnx.NodeProto, index: int, rank: int, view: NodeView) -> Sequence[int]:
    del index
    if view.opset >= _OPSET_OF_ONE_AXIS:
        return view.numbers(node, "axis", 99) or [-1]
    return range((view.numbers(node, "axis", 99) or [1])[0] % rank, rank)


def _normalised(node: onnx.NodeProto, index: int, rank: int, view: NodeView) -> Sequence[int]:
    return range((view.numbers(node, "axis", 99) or [-1])[0] % rank, rank) if index == 0 else ()


def _centred(node: onnx.NodeProto, index: int, rank: int, view: NodeView) -> Sequence[int]:
    del index, rank
    return view.numbers(node, "axes", 99) or (0, 2, 3)


def _running(node: onnx.NodeProto, index: int, rank: int, view: NodeView) -> Sequence[int]:
    del rank
    return (view.numbers(node, "", 1) or ()) if index == 0 else ()


def _gathered(node: onnx.NodeProto, index: int, rank: int, view: NodeView) -> Sequence[int]:
    del rank
    return (view.numbers(node, "axis", 99) or [0]) if index == 0 else ()


def _sliced(node: onnx.NodeProto, index: int, rank: int, view: NodeView) -> Sequence[int]:
    starts, ends = view.numbers(node, "starts", 1), view.numbers(node, "ends", 2)
    if index > 0 or starts is None or ends is None:
        return ()
    axes = view.numbers(node, "axes", 3) or list(range(rank))
    steps = view.numbers(node, "steps", 4) or [1] * len(starts)
    whole = [
        start == 0 and end >= _TO_THE_END and step == 1 for start, end, step in zip(starts, ends, steps, strict=True)
    ]
    return [axis for axis, all_of_it in zip(axes, whole, strict=False) if not all_of_it]


def _padded(node: onnx.NodeProto, index: int, rank: int, view: NodeView) -> Sequence[int]:
    pads = view.numbers(node, "pads", 1)
    if index > 0 or pads is None:
        return ()
    axes = view.numbers(node, "", 3) or list(range(rank))
    half = len(pads) // 2
    return [axis for axis, before, behind in zip(axes, pads[:half], pads[half:], strict=False) if before or behind]


def _recurrent(node: onnx.NodeProto, index: int, rank: int, view: NodeView) -> Sequence[int]:
    del rank
    return (view.numbers(node, "layout", 99) or [0]) if index == 0 else ()


def _product(node: onnx.NodeProto, index: int, rank: int, view: NodeView) -> Sequence[int]:
    del node, view
    return [-1] if index == 0 else [max(rank - 2, 0)]


def _gemm(node: onnx.NodeProto, index: int, rank: int, view: NodeView) -> Sequence[int]:
    del rank
    flags = [(view.numbers(node, name, 99) or [0])[0] for name in ("transA", "transB")]
    return [[0 if flags[0] else 1], [1 if flags[1] else 0], []][index]


def _trained(node: onnx.NodeProto, index: int, rank: int, view: NodeView) -> Sequence[int]:
    trains = (view.numbers(node, "training_mode", 99) or [0])[0]
    return [axis for axis in range(rank) if axis != 1] if trains and index == 0 else ()


_SORTED: Final = {name: _axis(0) for name in ("ArgMax", "ArgMin", "Split", "GatherElements")}
_FILTERS: Final = {
    name: _from(1)
    for name in (
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "DepthToSpace",
        "GroupNormalization",
        "QLinearConv",
        "SpaceToDepth",
    )
}
_WINDOWS: Final = {
    name: _from(2)
    for name in (
        "MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool",
        "InstanceNormalization",
    )
}  # fmt: skip
AXES: Final[Mapping[str, Rule]] = {
    **_SORTED,
    **_FILTERS,
    **_WINDOWS,
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _softmax),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _normalised),
    "Reduce": _reduced,
    "TopK": _axis(-1),
    "LpNormalization": _axis(-1),
    "LRN": lambda _node, _index, _rank, _view: (1,),
    "MeanVarianceNormalization": _centred,
    "Trilu": lambda _node, _index, _rank, _view: (-2, -1),
    "Concat": _axis(0, only=None),
    "CumSum": _running,
    "Gather": _gathered,
    "Slice": _sliced,
    "Pad": _padded,
    "MatMul": _product,
    "Gemm": _gemm,
    "BatchNormalization": _trained,
}
