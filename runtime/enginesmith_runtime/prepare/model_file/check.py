"""Checks that the file is ONNX that current runtimes read, and that everything it names exists.

Operators are checked before `onnx.checker`, which stops at the first unknown one, so that the user gets the whole list.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx
from onnx import checker, defs

from enginesmith_contract.backends import Precision
from enginesmith_contract.errors import ModelError
from enginesmith_contract.preparation import describe_refusals
from enginesmith_contract.preprocess import Preprocess, client_facts
from enginesmith_runtime.onnx_graphs.emulation import Emulation, emulate
from enginesmith_runtime.onnx_graphs.graph import all_nodes, is_onnx_domain, label, opset_of, read_graph
from enginesmith_runtime.onnx_graphs.order import order_warnings, sort_nodes
from enginesmith_runtime.onnx_graphs.scatters import losing_scatters, thread_warnings, unordered_scatters
from enginesmith_runtime.prepare.fp16.keep_list import check_keep
from enginesmith_runtime.prepare.jobs import Inspection
from enginesmith_runtime.prepare.model_file.advice import ranked_operators, table_advice
from enginesmith_runtime.prepare.model_file.facts import facts_of, model_files
from enginesmith_runtime.prepare.model_file.index_bounds import find_index_bounds
from enginesmith_runtime.prepare.model_file.inferred_shapes import without_declarations
from enginesmith_runtime.prepare.model_file.node_findings import find_random_nodes, find_refusals, find_zero_divisors
from enginesmith_runtime.prepare.model_file.ranks import first_input_ranks
from enginesmith_runtime.prepare.model_file.readable_weights import make_weights_readable
from enginesmith_runtime.prepare.model_file.row_mixing import find_mixing_nodes
from enginesmith_runtime.prepare.preprocess import insert_preprocess
from enginesmith_runtime.prepare.structure import structure_digest

__all__ = ["check_model", "inspect"]

_ZERO_POINT: Final = 2  # input of QuantizeLinear
_FP8: Final = frozenset(
    getattr(onnx.TensorProto, f"FLOAT8{kind}") for kind in ("E4M3FN", "E4M3FNUZ", "E5M2", "E5M2FNUZ")
)
_OLDEST_OPSET: Final = 7  # minimum of ONNX Runtime ("Compatibility" page of its documentation)
_PLUGIN_SUFFIX: Final = "_TRT"  # suffix of TensorRT's own plugins in exports (EfficientNMS_TRT)


def inspect(
    path: Path, output: Path | None = None, *, keep: tuple[str, ...] = (), preprocess: tuple[Preprocess, ...] = ()
) -> Inspection:
    """Check a model and return its facts.

    Args:
        path: Path of the ONNX file.
        output: Empty folder for a copy of the model with sorted nodes and weights that every reader supports; None for
            no copy.
        keep: `precision.keep`.
        preprocess: Normalisation of image inputs in the copy.

    Raises:
        enginesmith_contract.errors.ModelError: see `sort_nodes`, `check_model` and `facts_of`.
        enginesmith_contract.errors.SpecError: see `check_keep` and `client_facts`.
    """
    model = read_graph(path)
    late = sort_nodes(model, path.name)
    said = facts_of(model, path)
    plugin_warnings = check_model(model, path, is_the_file=not late)
    check_keep(model.graph, keep)
    original = said.facts if preprocess else None
    client_facts(said.facts, preprocess)
    insert_preprocess(model, preprocess)
    files = () if output is None else make_weights_readable(model, path, output, changed=late > 0 or bool(preprocess))
    if files:
        said = facts_of(model, path)  # weights in the file give additional facts
    refusals = find_refusals(model, path.parent)
    emulation = emulate(model)
    warnings = (
        *said.warnings,
        *plugin_warnings,
        *order_warnings(late),
        *(f"TensorRT: {line}, or use the backend onnxruntime" for line in describe_refusals(refusals)),
        *_bf16_warnings(emulation),
        *thread_warnings(losing := losing_scatters(model)),
    )
    nodes = [(label(node), node.op_type, node.domain) for node in all_nodes(model.graph)]
    return Inspection(
        files=files,
        facts=said.facts,
        original=original,
        unranked=said.unranked,
        index_bounds=find_index_bounds(model.graph),
        advice=table_advice(nodes, first_input_ranks(model, ranked_operators())),
        refusals=refusals,
        random=find_random_nodes(model, path.parent),
        losing=losing,
        mixing=find_mixing_nodes(model, path.parent),
        unordered=unordered_scatters(model),
        warnings=warnings,
        structure_digest=structure_digest(model),
        own_precisions=(*(emulation.precisions if emulation else ()), *_quantised_precisions(model)),
        needs_emulation=emulation is not None and emulation.has_bf16,
    )


def _quantised_precisions(model: onnx.ModelProto) -> tuple[Precision, ...]:
    """Return INT8 or FP8 if the source quantises values, because an engine may then differ by one step."""
    types = {one.name: one.data_type for one in model.graph.initializer}
    pairs = [node for node in all_nodes(model.graph) if node.op_type == "QuantizeLinear"]
    eight = {types.get(node.input[2]) if len(node.input) > _ZERO_POINT else None for node in pairs}
    found = {Precision.FP8 if one in _FP8 else Precision.INT8 for one in eight}
    return tuple(sorted(found))


def check_model(model: onnx.ModelProto, path: Path, *, is_the_file: bool = True) -> tuple[str, ...]:
    """Refuse a model that no runtime reads. Return warnings, one line each.

    Args:
        model: Model to check.
        path: Path of the file that it was read from.
        is_the_file: Whether the model is equal to the file.

    Raises:
        enginesmith_contract.errors.ModelError: `ModelTooNew`, `OpsetTooOld`, `ExternalDataMissing`, `OperatorsUnknown`
            (all of them by node and operator), `ModelInvalid` (the ONNX checker's error) or `DividesByZero` (integers
            by a constant).
    """
    _check_versions(model, path)
    _check_files(model, path)
    unknown, plugins = _foreign_operators(model)
    if unknown:
        raise ModelError(
            f"{len(unknown)} node(s) use operators that ONNX opset {opset_of(model)} does not have",
            where=path.name,
            why="; ".join(unknown),
            remedy="export with a newer opset, or without these operators; a plugin's operator needs its own domain",
            reason="OperatorsUnknown",
        )
    if not plugins:
        _run_checker(_checked(model, path, is_the_file=is_the_file), path)
    _check_divisors(model, path)
    return tuple(f"node {name} uses {op}, which needs a plugin library in build.plugins" for name, op in plugins)


def _check_versions(model: onnx.ModelProto, path: Path) -> None:
    opset, newest = opset_of(model), defs.onnx_opset_version()
    if model.ir_version > onnx.IR_VERSION or opset > newest:
        raise ModelError(
            "the model is newer than this release supports",
            where=path.name,
            why=f"IR version {model.ir_version} and opset {opset}; the newest are {int(onnx.IR_VERSION)} and {newest}",
            remedy=f"export it with opset {newest} or lower",
            reason="ModelTooNew",
        )
    if 0 < opset < _OLDEST_OPSET:
        raise ModelError(
            "the model's operator set is too old",
            where=path.name,
            why=f"opset {opset}; the oldest that runtimes read is {_OLDEST_OPSET}",
            remedy="export it again, or raise it with onnx.version_converter",
            reason="OpsetTooOld",
        )


def _check_files(model: onnx.ModelProto, path: Path) -> None:
    missing = [file.relative_to(path.parent).as_posix() for file in model_files(model, path)[1:] if not file.is_file()]
    if missing:
        raise ModelError(
            "weights are missing",
            where=path.name,
            why=f"the model names {', '.join(missing)} in its folder",
            remedy="put the weights files into the folder of the model, under these names",
            reason="ExternalDataMissing",
        )


def _foreign_operators(model: onnx.ModelProto) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the unknown operators of ONNX's domain, and those of other domains, which need plugins."""
    versions = {entry.domain: int(entry.version) for entry in model.opset_import}
    functions = {(function.domain, function.name) for function in model.functions}
    unknown: list[str] = []
    plugins: list[tuple[str, str]] = []
    for node in _checked_nodes(model):
        if (node.domain, node.op_type) in functions or _is_known(node, versions):
            continue
        if is_onnx_domain(node.domain) and not node.op_type.endswith(_PLUGIN_SUFFIX):
            unknown.append(f"{label(node)} ({node.op_type})")
        else:
            plugins.append((label(node), "::".join(part for part in (node.domain, node.op_type) if part)))
    return unknown, plugins


def _checked_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from all_nodes(model.graph)
    for function in model.functions:
        yield from function.node


def _is_known(node: onnx.NodeProto, versions: dict[str, int]) -> bool:
    domain = "" if is_onnx_domain(node.domain) else node.domain
    version = versions.get(node.domain, versions.get(domain, defs.onnx_opset_version()))
    try:
        return not defs.get_schema(node.op_type, version, domain).deprecated
    except defs.SchemaError:
        return False


def _run_checker(model: onnx.ModelProto | str, path: Path) -> None:
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        words = str(error).strip().splitlines()
        raise ModelError(
            "the ONNX checker refuses the model",
            where=path.name,
            why=words[0] if words else "it gives no reason",
            remedy="export it again",
            reason="ModelInvalid",
        ) from error


def _checked(model: onnx.ModelProto, path: Path, *, is_the_file: bool) -> onnx.ModelProto | str:
    """Return the file's path, because a model in memory is limited to 2 GiB, or a copy if outputs lack their shapes.

    The checker refuses such outputs, but runtimes accept them, and converters write them.
    """
    if is_the_file and all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
        return str(path)
    copy = without_declarations(model)
    for value in copy.graph.output:
        value.type.tensor_type.shape.SetInParent()
    return copy


def _check_divisors(model: onnx.ModelProto, path: Path) -> None:
    nodes = find_zero_divisors(model, path.parent)
    if nodes:
        raise ModelError(
            "the model divides integers by zero",
            where=path.name,
            why=f"a constant divisor contains 0: {', '.join(nodes)}",
            remedy="export it with a divisor that is not 0, or divide in float",
            reason="DividesByZero",
        )


def _bf16_warnings(emulation: Emulation | None) -> Iterator[str]:
    if emulation is not None and emulation.has_bf16:
        yield (
            "the model computes in BF16, and ONNX Runtime on a CPU does not: the references come from FP32, "
            f"each result rounded to the node's own type (nodes: {emulation.nodes})"
        )
