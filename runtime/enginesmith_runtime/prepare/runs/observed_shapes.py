"""Compares output shapes with the runs, so that clients get the actual shapes of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from enginesmith_contract.errors import ModelError
from enginesmith_contract.profile_suggestions import shape_text
from enginesmith_contract.tensors import ModelFacts, TensorSpec
from enginesmith_runtime.prepare.jobs import Shapes

__all__ = ["Observation", "correct_outputs"]


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The shapes of one run's inputs and outputs, by name."""

    inputs: Shapes
    outputs: Shapes


def correct_outputs(
    facts: ModelFacts, unranked: Sequence[str], seen: Sequence[Observation]
) -> tuple[ModelFacts, tuple[str, ...]]:
    """Return the facts with outputs that fit every run, and a warning for each corrected output.

    A dimension that neither the file nor the nodes define is open, even if all runs had the same size.

    Args:
        facts: Facts from the file and from shape inference.
        unranked: Names of outputs with unknown rank.
        seen: The runs.

    Raises:
        enginesmith_contract.errors.ModelError: `OutputShapeUnknown` if no run gave the rank of an output.
    """
    warnings: list[str] = []
    outputs: list[TensorSpec] = []
    for spec in facts.outputs:
        shapes = [
            (_bound(facts, one.inputs), tuple(one.outputs[spec.name])) for one in seen if spec.name in one.outputs
        ]
        if spec.name in unranked:
            outputs.append(_ranked(spec, [shape for _, shape in shapes]))
            continue
        corrected = _corrected(spec, shapes)
        if corrected != spec:
            example = next(shape for bound, shape in shapes if not _fits(spec, bound, shape))
            warnings.append(
                f"output {spec.name!r}: the model says {shape_text(spec)} and gave {list(example)}, "
                f"so clients see {shape_text(corrected)}"
            )
        outputs.append(corrected)
    return facts.model_copy(update={"outputs": tuple(outputs)}), tuple(warnings)


def _bound(facts: ModelFacts, shapes: Shapes) -> dict[str, int]:
    """Return the sizes of the named open dimensions of the inputs in a run."""
    return {
        symbol: shapes[spec.name][axis]
        for spec in facts.inputs
        for axis, symbol in enumerate(spec.symbols)
        if symbol is not None
    }


def _ranked(spec: TensorSpec, shapes: Sequence[tuple[int, ...]]) -> TensorSpec:
    if not shapes:
        raise ModelError(
            "the shape of an output is not known",
            where=spec.name,
            why="it is not in the file, the nodes do not define it, and no run fitted the budget",
            remedy="export the model with the shapes of its outputs, or give the preparation more memory and time",
            reason="OutputShapeUnknown",
        )
    return _open(spec, len(shapes[-1]))


def _open(spec: TensorSpec, rank: int) -> TensorSpec:
    return spec.model_copy(update={"shape": (-1,) * rank, "symbols": (None,) * rank})


def _fits(spec: TensorSpec, bound: Mapping[str, int], shape: tuple[int, ...]) -> bool:
    return len(shape) == len(spec.shape) and all(_agrees(spec, axis, bound, size) for axis, size in enumerate(shape))


def _agrees(spec: TensorSpec, axis: int, bound: Mapping[str, int], size: int) -> bool:
    if spec.shape[axis] >= 0:
        return spec.shape[axis] == size
    symbol = spec.symbol(axis)
    return symbol is None or bound.get(symbol, size) == size


def _corrected(spec: TensorSpec, shapes: Sequence[tuple[Mapping[str, int], tuple[int, ...]]]) -> TensorSpec:
    other = next((shape for _, shape in reversed(shapes) if len(shape) != len(spec.shape)), None)
    if other is not None:
        return _open(spec, len(other))
    wrong = {axis for bound, shape in shapes for axis, size in enumerate(shape) if not _agrees(spec, axis, bound, size)}
    if not wrong:
        return spec
    symbols = spec.symbols or (None,) * len(spec.shape)
    return spec.model_copy(
        update={
            "shape": tuple(-1 if axis in wrong else size for axis, size in enumerate(spec.shape)),
            "symbols": tuple(None if axis in wrong else symbol for axis, symbol in enumerate(symbols)),
        }
    )
