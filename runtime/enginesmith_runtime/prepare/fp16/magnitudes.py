"""Finds nodes with values out of FP16's range for any input: lost constants, factors, long sums, quotients.

A constant of 1e-12 is 0 in FP16, and its node stays in FP32. So do the nodes before it that produce small values from
ordinary ones, those that produce a denominator, and those that produce a difference that is then amplified. `features`
handles the nodes after it, which read FP32.
"""

from typing import Final

import onnx

from enginesmith_runtime.onnx_graphs.dataflow import CAUSE, MOVES, Dataflow, has_subgraph
from enginesmith_runtime.prepare.fp16.growth import MEANS, Growth
from enginesmith_runtime.prepare.fp16.traits import BOUNDS, SUMS, lost_constant

__all__ = ["nodes_beyond_magnitudes"]

# Operators with an unbounded slope near 1, where FP16 has only three decimal digits.
_STEEP_AT_ONE: Final = frozenset({"Acos", "Acosh", "Asin", "Atanh"})
# Operators that produce small values from ordinary ones. Sums, means and square roots only pass them on.
_SHRINKS: Final = frozenset(
    {"Div", "Exp", "HardSigmoid", "Mul", "Pow", "ReduceL2", "ReduceProd", "ReduceSumSquare", "Sigmoid", "Softmax"}
)
_PASSES: Final = MOVES | SUMS | MEANS | frozenset({"Abs", "Neg", "Sqrt"})
_LIGHT: Final = _PASSES | _SHRINKS | frozenset({"LeakyRelu", "Relu", "Softplus", "Tanh"})
_DIFFERENCES: Final = MOVES | MEANS | frozenset({"Add", "Neg", "Sigmoid", "Softmax", "Sub", "Tanh"})
_DEVIATIONS: Final = MEANS | frozenset({"Neg", "Sigmoid", "Softmax", "Sub", "Tanh"})
_QUOTIENT: Final = "a quotient depends on small denominators that FP16 cannot represent"
_ENLARGED: Final = "differences that FP16 rounds away become large"


def nodes_beyond_magnitudes(flow: Dataflow) -> dict[str, str]:
    """Return the nodes that must stay in FP32 for this, with the reason."""
    return _Search(flow).run()


class _Search:
    """One pass over the nodes in their order."""

    def __init__(self, flow: Dataflow) -> None:
        self._flow = flow
        self._kept: dict[str, str] = {}
        self._growth = Growth(flow)

    def run(self) -> dict[str, str]:
        """Return the nodes with the reasons."""
        for node in self._flow.graph.node:
            self._growth.note(node)
            if has_subgraph(node) or node.op_type in {"Shape", "Size", "Constant", "ConstantOfShape"}:
                continue
            if not any(self._flow.is_float(name) for name in (*node.input, *node.output)):
                continue
            if node.output and all(name in self._flow.constants for name in node.output if name):
                continue
            self._look_at(node)
        return self._kept

    def _look_at(self, node: onnx.NodeProto) -> None:
        lost = lost_constant(node, self._flow)
        if lost:
            self._keep(node, lost)
            if node.op_type in SUMS | BOUNDS:
                self._keep_before(node, f"its result goes to {node.name}{CAUSE}{lost}")
        grows = self._growth.why(node)
        if grows:
            self._keep(node, grows)
        self._keep_makers(node)
        reason = _why_it_is_steep(node)
        if reason:
            self._keep(node, reason)
            self._keep_before(node, f"its result goes to {node.name}{CAUSE}{reason}")
            self._keep_differences(node, reason, _DIFFERENCES | {"Mul", "Pow"})

    def _keep(self, node: onnx.NodeProto, reason: str) -> None:
        self._kept.setdefault(node.name, reason)

    def _keep_makers(self, node: onnx.NodeProto) -> None:
        """Keep a quotient with the nodes of its denominator, and the nodes of differences that a node amplifies."""
        denominator = _denominator_of(node, self._flow)
        if denominator and denominator not in self._flow.weights:
            self._keep(node, _QUOTIENT)
            for each in self._flow.upstream([denominator], self._makes_denominators):
                self._keep(each, f"its result goes to {node.name}{CAUSE}{_QUOTIENT}")
        elif self._growth.is_product_of_products(node):
            for each in self._flow.upstream(self._flow.floats(node), self._growth.is_of_products):
                self._keep(each, f"its result goes to {node.name}{CAUSE}{self._growth.why(node)}")
        elif self._growth.enlarges(node):
            self._keep_differences(node, _ENLARGED)
        elif self._growth.is_power(node) or self._growth.is_square(node):
            self._keep_differences(node, _ENLARGED, _DEVIATIONS)

    def _keep_differences(self, node: onnx.NodeProto, reason: str, operators: frozenset[str] = _DIFFERENCES) -> None:
        for each in self._flow.upstream(self._flow.floats(node), lambda one: self._is_light(one, operators)):
            self._keep(each, f"its result goes to {node.name}{CAUSE}{reason}")

    def _makes_denominators(self, node: onnx.NodeProto) -> bool:
        """Whether a node passes the digits of a denominator on. Squares and powers have a separate rule."""
        ends = self._growth.is_power(node) or self._growth.is_square(node)
        return not ends and self._is_light(node, _LIGHT)

    def _is_light(self, node: onnx.NodeProto, operators: frozenset[str]) -> bool:
        """Whether a node has one of these operators. A search stops at the sum of two features."""
        return node.op_type in operators and (node.op_type not in {"Add", "Sum"} or len(self._flow.floats(node)) == 1)

    def _keep_before(self, node: onnx.NodeProto, reason: str) -> None:
        """Keep the earlier nodes that produced small values from ordinary ones, and the nodes between."""
        left: list[tuple[str, tuple[onnx.NodeProto, ...]]] = [(name, ()) for name in self._flow.floats(node)]
        seen: set[str] = set()
        while left:
            name, path = left.pop()
            made = self._flow.producers.get(name)
            if made is None or name in seen or has_subgraph(made):
                continue
            seen.add(name)
            if made.op_type in _SHRINKS and not self._is_scaled(made):
                for each in (*path, made):
                    self._keep(each, reason)
            elif made.op_type in _PASSES or self._is_scaled(made):
                left += [(before, (*path, made)) for before in self._flow.floats(made)]

    def _is_scaled(self, node: onnx.NodeProto) -> bool:
        """Whether a product or a quotient has a constant operand, and so the size of the other operand."""
        return node.op_type in {"Div", "Mul"} and any(name in self._flow.weights for name in node.input)


def _denominator_of(node: onnx.NodeProto, flow: Dataflow) -> str:
    """Return the value that a node divides by, or "" if it does not divide."""
    match node.op_type:
        case "Reciprocal":
            return str(node.input[0])
        case "Div":
            return str(node.input[1])
        case "Pow":
            exponent = flow.constants.get(node.input[1])
            return str(node.input[0]) if exponent is not None and bool((exponent < 0).any()) else ""
        case _:
            return ""


def _why_it_is_steep(node: onnx.NodeProto) -> str:
    if node.op_type == "Log":
        return "a logarithm depends on small values that FP16 cannot represent"
    return "it depends on values near 1 that FP16 cannot represent" if node.op_type in _STEEP_AT_ONE else ""
