"""Possible problems of operators, each with its node. They are reported before a build and are never a verdict.

There are two sources: a table of operators by TensorRT version, and the parser of TensorRT for RTX if it is installed.
That parser shares its code with TensorRT's parser and runs on any CPU, but lacks the plugins. It can crash, so it runs
in a process.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final

import yaml

from enginesmith_contract.preparation import Advice
from enginesmith_contract.record import Record
from enginesmith_runtime.child_processes import Limits, Outcome, python_command, run_child

__all__ = ["parser_advice", "ranked_operators", "table_advice"]

_PARSER: Final = "enginesmith_runtime.engines.nvinfer.tensorrt_rtx_parser"


class _Row(Record):
    """One row of the table. `rank` is the rank of the node's first input, or None for any."""

    ops: tuple[str, ...]
    rank: int | None = None
    tensorrt: str
    message: str
    source: str


class _Table(Record):
    """operator_advice.yaml."""

    sources: dict[str, str]
    advice: tuple[_Row, ...]


class _ParserNode(Record):
    """A node that the parser refused. `node` is empty if the parser gave no name."""

    node: str
    op: str
    message: str


class _ParserAnswer(Record):
    """Output of the parser's process."""

    version: str
    errors: tuple[_ParserNode, ...]


def table_advice(
    nodes: Iterable[tuple[str, str, str]], ranks: Mapping[str, int] = MappingProxyType({})
) -> tuple[Advice, ...]:
    """Return the table's rows for nodes, in the nodes' order.

    `tensorrt` of the results is the version range of the row as a specifier of `packaging`.

    Args:
        nodes: (name, operator, domain) of each node.
        ranks: Rank of the first input by node name. Rows with a rank apply only if it is known.
    """
    rows = _rows_by_operator()
    return tuple(
        Advice(tensorrt=row.tensorrt, node=name, op=op, source="table", message=row.message)
        for name, op, domain in nodes
        if domain in {"", "ai.onnx"}
        for row in rows.get(op, ())
        if row.rank is None or row.rank == ranks.get(name)
    )


def ranked_operators() -> frozenset[str]:
    """Return the operators with rows for one rank only."""
    return frozenset(op for op, rows in _rows_by_operator().items() if any(row.rank is not None for row in rows))


def parser_advice(
    model: Path, *, folder: Path, limits: Limits, tick: Callable[[], None]
) -> tuple[tuple[Advice, ...], str]:
    """Run the parser of TensorRT for RTX in a separate process.

    Returns:
        Every node that it refuses, and a warning if it failed. The warning is empty if the parser is not installed.
    """
    if find_spec("tensorrt_rtx") is None:
        return (), ""
    lines: list[bytes] = []
    command = python_command(_PARSER, str(model))
    end = run_child(command, log=folder / "parser.log", limits=limits, tick=tick, on_line=lines.append)
    if end.outcome is not Outcome.FINISHED or not lines:
        words = f"{end.outcome.value} {end.detail}".strip()
        return (), f"TensorRT for RTX's parser gave no second opinion on the operators ({words})"
    answer = _ParserAnswer.model_validate(json.loads(lines[-1]))
    return tuple(
        Advice(
            tensorrt=answer.version,
            node=error.node or "unnamed",
            op=error.op or "unknown",
            source="tensorrt-rtx",
            message=error.message,
        )
        for error in answer.errors
    ), ""


@cache
def _rows_by_operator() -> dict[str, list[_Row]]:
    text = (
        resources.files("enginesmith_runtime.prepare.model_file")
        .joinpath("operator_advice.yaml")
        .read_text(encoding="utf-8")
    )
    table = _Table.model_validate(yaml.safe_load(text))
    rows: dict[str, list[_Row]] = {}
    for row in table.advice:
        for op in row.ops:
            rows.setdefault(op, []).append(row)
    return rows
