"""Decides which nodes between layers compute in FP16: few operators on values that layers produced.

A value is a feature if a node in FP16 produced it. A node between layers computes in FP16 if its operator is in the
list below, its constants have ordinary sizes, and each value that it reads is a feature or has an ordinary size (a
Softmax, a normalisation, a sine, a small table). All other nodes use FP32. A layer reads FP32 values as FP16 unless a
product, a power, an exponential, a sum or an integer may have made them large. Such a layer also stays in FP32.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto

from enginesmith_runtime.onnx_graphs.dataflow import ARITHMETIC, MOVES, Dataflow
from enginesmith_runtime.prepare.fp16.cast_rules import CastRules
from enginesmith_runtime.prepare.fp16.layers import constant_values, layer_names

__all__ = ["Sources", "nodes_that_widen"]

_READS: Final = "it reads FP32 values that may be of any size, or differ by less than FP16 holds"
_OPERATOR: Final = "between layers, FP16 is for operators that leave features ordinary"
_SIZE: Final = "a constant of it is too large or too small for ordinary features"
_INPUT: Final = (
    "it reads an input whose range verification.inputs does not give, or rows of a table, and FP16 would round them"
)
_COMPARED: Final = "rows of its table are taken from each other, and FP16 rounds away how they differ"
_ROWS: Final = "its table holds numbers above 8, which FP16 rounds to steps of 1/128 and more"
_OVERFLOW: Final = "it reads products, sums or integers that may be above 65504"

_LARGEST: Final = 128.0
_LARGEST_ROW: Final = 8.0
_LARGEST_FACTOR: Final = 8.0
_SMALLEST_FACTOR: Final = 2.0**-10
_BOUND: Final = 10.0

_MOVES: Final = (MOVES - {"Cast", "Scatter", "ScatterElements", "ScatterND", "TopK", "Where"}) | {"Neg"}
_SMOOTH: Final = frozenset(
    {
        "Abs", "AveragePool", "Celu", "Elu", "Gelu", "GlobalAveragePool", "HardSigmoid", "HardSwish", "LeakyRelu",
        "Mish", "PRelu", "ReduceMean", "Relu", "Selu", "Sigmoid", "Swish", "Tanh", "ThresholdedRelu",
    }
)  # fmt: skip
_SCALES: Final = frozenset({"BatchNormalization", "Div", "Mul"})
_SUMS: Final = frozenset({"Add", "Sub"})
_BOUNDED: Final = frozenset(
    {"Cos", "Erf", "HardSigmoid", "Hardmax", "LpNormalization", "Sigmoid", "Sin", "Softmax", "Softsign", "Tanh"}
)
_NORMALISED: Final = frozenset(
    {
        "BatchNormalization", "DequantizeLinear", "GroupNormalization", "InstanceNormalization", "LayerNormalization",
        "MeanVarianceNormalization", "RMSNormalization",
    }
)  # fmt: skip
_SAMPLES: Final = frozenset({"GridSample", "MaxRoiPool", "RoiAlign"})
_GROWS: Final = frozenset(
    {
        "Cosh", "CumProd", "CumSum", "Exp", "Pow", "ReduceL1", "ReduceProd", "ReduceSum",
        "ReduceSumSquare", "Sinh",
    }
)  # fmt: skip
_PRODUCTS: Final = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
_SCATTERS: Final = frozenset({"Scatter", "ScatterElements", "ScatterND"})
_SHRINKS: Final = frozenset({"Log", "Sqrt"})
_FIXED_SCALES: Final = frozenset({"BatchNormalization", "DequantizeLinear"})  # these enlarge what they read
_OF_ALL: Final = ARITHMETIC | {"Concat", "Max", "Min", "ScatterElements", "ScatterND", "Where"}
_ROOTS: Final = frozenset({"Sqrt", "ReduceL2"})
_BIAS: Final[Mapping[str, int]] = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Facts about values from other rules.

    Attributes:
        inputs: Inputs of the graph, of any dtype, that may hold values of any size.
        held: Nodes in FP32 whose results fit FP16.
    """

    inputs: Collection[str] = ()
    held: AbstractSet[str] = frozenset()


def nodes_that_widen(
    flow: Dataflow,
    rules: CastRules,
    kept: Mapping[str, str],
    fragile: AbstractSet[str],
    sources: Sources,
) -> dict[str, str]:
    """Return the nodes that stay in FP32 because of their operator or inputs, with the reason.

    Args:
        flow: The graph.
        rules: Rules for inputs that may become FP16.
        kept: Nodes that already stay in FP32.
        fragile: Kept nodes whose results may need the digits of FP32 although they are small.
        sources: See `Sources`.
    """
    search = _Widening(flow, rules, kept, fragile, sources)
    for node in flow.graph.node:
        search.look_at(node)
    return search.found


class _Widening:
    """One pass over the nodes in their order."""

    def __init__(
        self,
        flow: Dataflow,
        rules: CastRules,
        kept: Mapping[str, str],
        fragile: AbstractSet[str],
        sources: Sources,
    ) -> None:
        self.found: dict[str, str] = {}
        self._flow = flow
        self._rules = rules
        self._kept = kept
        self._fragile = fragile
        self._layers = layer_names(flow)
        self._alone = constant_values(flow)
        self._features: set[str] = set()
        self._bounds: dict[str, float] = {}  # bounds of values up to 10
        self._ordinary: set[str] = set()  # normalised values
        self._large: set[str] = set(flow.counted)
        self._held = sources.held
        self._raw: set[str] = set(sources.inputs)  # with everything before a layer or a normalisation
        self._compared = _compared_tables(flow, self._layers)
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in flow.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def look_at(self, node: onnx.NodeProto) -> None:
        """Decide about a node, and record facts about its results."""
        made = [name for name in node.output if self._flow.is_float(name)]
        if self._opens(node):
            self._raw.update(node.output)
        if not made or all(name in self._alone for name in made):
            return
        if node.name not in self._kept and self._rules.is_convertible(node):
            self._decide(node, made)
        elif node.name in self._held:
            self._ordinary.update(made)
        read = self._read(node)
        ends = node.name in self._layers or node.op_type in (_BOUNDED | _NORMALISED) - _FIXED_SCALES
        if not ends and not self._raw.isdisjoint(read):
            self._raw.update(made)
        bound = self._bound(node)
        if bound <= _BOUND:
            self._bounds |= dict.fromkeys(made, bound)
            self._large.difference_update(made)
        elif self._is_ordinary(node, read):
            self._ordinary.update(made)
            if node.op_type not in _FIXED_SCALES:
                self._raw.difference_update(made)
        elif not self._features.issuperset(made) and self._may_be_large(node, read):
            self._large.update(made)

    def _opens(self, node: onnx.NodeProto) -> bool:
        """Whether results come from open values of another dtype, or from an unknown operator."""
        if node.domain not in {"", "ai.onnx"}:
            known = self._features.union(self._alone)
            return not node.op_type.endswith("Normalization") and not any(
                name in known for name in node.input if self._flow.is_float(name)
            )
        others = node.input if node.op_type in _OF_ALL else node.input[:1]
        others = [name for name in others if not self._flow.is_float(name)]
        follows = node.op_type in MOVES | ARITHMETIC | {"DequantizeLinear"}
        return follows and not self._raw.isdisjoint(others)

    def _decide(self, node: onnx.NodeProto, made: list[str]) -> None:
        reason = self._why_layer(node) if node.name in self._layers else self._why(node)
        if not reason:
            self._features.update(made)
            return
        self.found[node.name] = reason
        if reason == _INPUT:
            self._ordinary.update(made)
        elif reason in {_COMPARED, _ROWS}:
            self._raw.update(made)

    def _known(self) -> set[str]:
        """Return the values that fit FP16 like features."""
        return (self._features | self._bounds.keys() | self._ordinary) - self._raw

    def _read(self, node: onnx.NodeProto) -> list[str]:
        return [name for name in node.input if self._flow.is_float(name) and name not in self._alone]

    def _why_layer(self, node: onnx.NodeProto) -> str:
        bias = node.input[_BIAS[node.op_type]] if len(node.input) > _BIAS.get(node.op_type, 9) else ""
        read = self._read(node)
        reasons = (
            (self._size(bias) > _LARGEST, _SIZE),
            (not self._large.isdisjoint(read), _OVERFLOW),
            (not self._raw.isdisjoint(read), _INPUT),
            (node.name in self._compared, _COMPARED),
            (node.op_type == "Gather" and self._size(node.input[0]) > _LARGEST_ROW, _ROWS),
        )
        return next((reason for holds, reason in reasons if holds), "")

    def _why(self, node: onnx.NodeProto) -> str:
        read = [node.input[index] for index in self._rules.half_inputs(node)]
        read = [name for name in read if name not in self._alone]
        if not self._is_listed(node, read):
            return _OPERATOR
        known = self._known()
        if not known.issuperset(read):
            return _READS
        return "" if self._has_ordinary_constants(node) else _SIZE

    def _is_listed(self, node: onnx.NodeProto, read: list[str]) -> bool:
        match node.op_type:
            case "Mul":
                return len(read) == 1 or (
                    len(node.input) == len(set(read)) and any(name in self._bounds for name in read)
                )
            case "Conv" | "ConvTranspose" | "Div" | "Gemm" | "MatMul":
                # Larger matrices are layers or have unknown sums.
                return node.input[1] in (self._alone if node.op_type == "Div" else self._flow.constants)
            case "BatchNormalization":
                return len(read) == 1
            case "Resize" | "Upsample":
                mode = next((one.s for one in node.attribute if one.name == "mode"), b"nearest")
                return mode in {b"nearest", b"linear"}
            case "Erf":
                return self._is_of_gelu(node)
            case operator:
                return operator in _MOVES | _SMOOTH | _SUMS | {"Identity", "Sum"}

    def _is_of_gelu(self, node: onnx.NodeProto) -> bool:
        """Whether the node adds one to an Erf, and the sum is a factor."""
        sums = self._readers.get(node.output[0], [])
        ends = [each for one in sums for each in self._readers.get(one.output[0], [])]
        return bool(ends) and all(one.op_type == "Add" for one in sums) and all(one.op_type == "Mul" for one in ends)

    def _has_ordinary_constants(self, node: onnx.NodeProto) -> bool:
        fixed = [name for name in node.input if name in self._alone and self._flow.is_float(name)]
        if node.op_type in {"Clip", "Resize", "Upsample"}:
            return True
        if node.op_type == "BatchNormalization":
            return all(self._size(node.input[index]) <= _LARGEST for index in (1, 2, 3))
        if node.op_type not in _SCALES:
            return all(self._size(name) <= _LARGEST for name in fixed)
        return all(self._is_ordinary_factor(name, inverse=node.op_type == "Div") for name in fixed)

    def _is_ordinary_factor(self, name: str, *, inverse: bool) -> bool:
        values = self._flow.constants.get(name)
        if values is None or not values.size:
            return True  # only large constants are unknown
        size = self._size(name)
        size = 1 / (size or 1) if inverse else size
        return _SMALLEST_FACTOR <= size <= (_LARGEST_FACTOR if values.size == 1 else _LARGEST) or not size

    def _size(self, name: str) -> float:
        """Return the largest magnitude of a constant (of its sample if it is large), or 0 if it is not known."""
        values = self._flow.constants.get(name, self._flow.samples.get(name))
        return 0.0 if values is None else float(np.max(np.abs(values), initial=0.0))

    def _bound(self, node: onnx.NodeProto) -> float:
        """Return the upper bound of a result's magnitude for all features, or infinity if there is none."""
        bounds = [self._bound_of(name) for name in node.input if self._flow.is_float(name)]
        bound = np.inf
        if node.name in self._fragile and node.op_type not in _BOUNDED:
            return bound
        match node.op_type:
            case "Cast" if self._flow.types.get(node.input[0]) == TensorProto.BOOL:
                bound = 1.0
            case "Clip":
                bound = _clip_bound(node, self._flow)
            case "Add" | "Sub" | "Sum":
                bound = sum(bounds)
            case "Mul":
                bound = float(np.prod(bounds)) if 0.0 not in bounds else 0.0
            case "Div" if node.input[1] in self._flow.constants:
                values = np.abs(self._flow.constants[node.input[1]])
                bound = bounds[0] / float(np.min(values)) if values.size and values.all() else np.inf
            case operator if operator in _MOVES | {"Identity", "ReduceMean", "Relu", "Where"}:
                bound = max(bounds, default=np.inf)
            case _:
                pass
        return 1.0 if node.op_type in _BOUNDED else bound

    def _bound_of(self, name: str) -> float:
        values = self._flow.constants.get(name)
        return self._bounds.get(name, np.inf) if values is None else self._size(name)

    def _is_ordinary(self, node: onnx.NodeProto, read: list[str]) -> bool:
        """Whether a result is normalised, or is a moved or scaled normalised value."""
        known = self._known()
        if node.op_type in _NORMALISED:
            return self._has_ordinary_constants(node)
        if node.op_type in _SAMPLES:
            return node.input[0] in known
        if node.op_type in {"Div", "Mul"} and len(read) > 1:
            return any(self._is_deviation(name, inverse=node.op_type == "Mul") for name in read[-2:])
        moves = (
            node.name not in self._fragile
            and node.op_type in _MOVES | _SCALES | _SUMS
            and (len(read) == 1 or node.op_type == "Concat")
        )
        return moves and known.issuperset(read) and self._has_ordinary_constants(node)

    def _is_deviation(self, name: str, *, inverse: bool) -> bool:
        """Whether a value is the root of a mean of squares. A division by it gives ordinary values."""
        made = self._flow.producers.get(name)
        while made is not None and made.op_type in {"Add", "Clip", "Expand", "Max", "Unsqueeze"}:
            made = next((self._flow.producers.get(one) for one in self._read(made)), None)
        if made is None:
            return False
        if inverse and made.op_type == "Reciprocal":
            return self._is_deviation(made.input[0], inverse=False)
        if inverse and made.op_type == "Div":
            return made.input[0] in self._alone and self._is_deviation(made.input[1], inverse=False)
        if inverse and made.op_type == "Pow":
            exponent = self._flow.constants.get(made.input[1])
            return exponent is not None and bool((exponent == -0.5).all())  # noqa: PLR2004 - the power of a root
        return not inverse and made.op_type in _ROOTS

    def _may_be_large(self, node: onnx.NodeProto, read: list[str]) -> bool:
        """Whether a result in FP32 may exceed 65504 although the features and the graph's inputs do not."""
        grows = not self._flow.narrow.wide and self._grows(node, read)
        ends = node.op_type in _SHRINKS or (node.op_type == "Div" and node.input[1] not in self._alone)
        return grows or (not ends and any(name in self._large for name in read))

    def _grows(self, node: onnx.NodeProto, read: list[str]) -> bool:
        """Whether a result may be much larger than the node's inputs."""
        grows = node.op_type in _GROWS and not (node.op_type == "Pow" and self._is_root(node))
        multiplies = (node.op_type in _PRODUCTS | {"Mul"} and sum(name not in self._bounds for name in read) > 1) or (
            node.op_type in _PRODUCTS and node.name in self._fragile
        )
        adds = node.op_type in _SCATTERS and any(one.name == "reduction" and one.s != b"none" for one in node.attribute)
        return grows or multiplies or adds or self._enlarges(node, read)

    def _enlarges(self, node: onnx.NodeProto, read: list[str]) -> bool:
        """Whether a node inverts a feature, or multiplies one by a large constant."""
        fixed = [name for name in node.input if name in self._alone]
        if node.op_type == "Reciprocal" or (node.op_type == "Div" and fixed == node.input[:1]):
            return not self._is_deviation(node.input[-1], inverse=False)
        if node.op_type not in {"Div", "Mul"} or not fixed or any(name in self._flow.given for name in read):
            return False
        size = self._size(fixed[0])
        return (1 / (size or 1) if node.op_type == "Div" else size) > _LARGEST

    def _is_root(self, node: onnx.NodeProto) -> bool:
        exponent = self._flow.constants.get(node.input[1])
        return exponent is not None and bool((np.abs(exponent) <= 1).all())


def _compared_tables(flow: Dataflow, layers: AbstractSet[str]) -> set[str]:
    """Return the tables whose rows are combined with other rows of the table, or subtracted from values of no layer."""
    rows: dict[str, frozenset[tuple[str, str]]] = {}  # value to its source tables, by node and by weight
    found: set[str] = set()
    for node in flow.graph.node:
        read = flow.floats(node)
        if node.op_type == "Gather" and node.name in layers:
            rows[node.output[0]] = frozenset({(node.name, node.input[0])})
            continue
        tables = frozenset[tuple[str, str]]().union(*(rows.get(name, frozenset()) for name in read))
        plain = all(name in rows or name in flow.given for name in read)
        if len({weight for _, weight in tables}) < len(tables) or (plain and _takes_away(node, read)):
            found |= {name for name, _ in tables}
        if plain and tables and node.op_type in MOVES | {"Add", "Div", "Mul", "Neg", "Sum"}:
            rows |= dict.fromkeys(node.output, tables)
    return found


def _takes_away(node: onnx.NodeProto, read: list[str]) -> bool:
    return node.op_type == "Neg" or (node.op_type == "Sub" and len(read) > 1)


def _clip_bound(node: onnx.NodeProto, flow: Dataflow) -> float:
    bounds = [flow.constants.get(name) for name in node.input[1:3]]
    known = [float(np.max(np.abs(values))) for values in bounds if values is not None and values.size]
    known += [abs(float(one.f)) for one in node.attribute if one.name in {"max", "min"}]
    return max(known) if len(known) > 1 else np.inf
