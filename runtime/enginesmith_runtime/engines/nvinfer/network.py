"""Parses an ONNX file to a strongly typed network with its profiles, or reports every reason of a failure."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from enginesmith_contract.errors import BuildError
from enginesmith_contract.profile_suggestions import values_entry
from enginesmith_contract.profiles import Profile, ShapeRange, ValueRange
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.engines.nvinfer.messages import MessageLog, list_reasons

__all__ = ["ParsedNetwork", "add_profiles", "describe_tensors", "parse_network"]

# Names in nvinfer's DataType by datatype of clients. FP8, INT4 and FP4 are never inputs or outputs.
_DTYPES: Final = {
    "FLOAT": DType.FP32,
    "HALF": DType.FP16,
    "BF16": DType.BF16,
    "INT8": DType.INT8,
    "INT32": DType.INT32,
    "INT64": DType.INT64,
    "BOOL": DType.BOOL,
    "UINT8": DType.UINT8,
}

_NO_NODE: Final = -1


@dataclass(frozen=True, kw_only=True)
class ParsedNetwork:
    """A network and its parser, which must live as long as the network because they share memory."""

    network: Any
    parser: Any


def parse_network(module: Any, builder: Any, log: Any, model: Path) -> ParsedNetwork:
    """Parse a model.

    Args:
        module: the library.
        builder: Builder of the library.
        log: Logger of the library.
        model: ONNX file. External weights are in the same folder.

    Raises:
        BuildError: `UnsupportedOperators` with every node that the parser refuses, or `ParserRefused`.
    """
    network = builder.create_network(_strongly_typed(module))
    if network is None:
        raise BuildError(
            "the library created no network", why=" | ".join(list_reasons(log.errors)), reason="BuilderFailed"
        )
    parser = module.OnnxParser(network, log)
    if parser.parse_from_file(str(model)):
        return ParsedNetwork(network=network, parser=parser)
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    lines = (*dict.fromkeys(_describe_error(error) for error in errors), *_list_siblings(model, errors))
    unsupported = any(_is_unsupported(error) for error in errors)
    raise BuildError(
        f"the parser refuses {len(lines)} {'node' if len(lines) == 1 else 'nodes'}"
        if unsupported
        else "the parser refuses the model",
        where=model.name,
        why="\n".join(lines) or " | ".join(list_reasons(log.errors)),
        remedy=(
            "replace these operators in the model, add a plugin that has them (build.plugins), or use the backend "
            "onnxruntime"
            if unsupported
            else "check the model with onnx.checker"
        ),
        reason="UnsupportedOperators" if unsupported else "ParserRefused",
    )


def add_profiles(
    builder: Any,
    config: Any,
    network: Any,
    profiles: tuple[Profile, ...],
    log: MessageLog,
) -> None:
    """Add one optimisation profile for each of `profiles`; a network of fixed shapes without shape inputs needs none.

    Raises:
        BuildError: `ProfileRefused` with the library's error, or `MissingValues` if an input holds sizes and its
            profile has no values.
    """
    dynamic = [tensor for tensor in _list_inputs(network) if any(size < 0 for size in tensor.shape)]
    sized = [tensor for tensor in _list_inputs(network) if tensor.is_shape_tensor]
    if not dynamic and not sized:
        return
    for profile in profiles:
        native = builder.create_optimization_profile()
        for tensor in dynamic:
            shapes = _find_range(profile, tensor.name)
            if len(shapes.opt) != len(tensor.shape):
                why = f"the range has {len(shapes.opt)} dimensions, the input has {len(tensor.shape)}"
                raise _profile_refused(profile, tensor.name, why)
            try:
                native.set_shape(tensor.name, shapes.min, shapes.opt, shapes.max)
            except (ValueError, TypeError, RuntimeError) as error:
                raise _profile_refused(profile, tensor.name, str(error)) from error
        for tensor in sized:
            values = _find_values(profile, tensor)
            try:
                native.set_shape_input(tensor.name, values.min, values.opt, values.max)
            except (ValueError, TypeError, RuntimeError) as error:
                raise _profile_refused(profile, tensor.name, str(error)) from error
        if not native or config.add_optimization_profile(native) < 0:
            raise _profile_refused(profile, "", " | ".join(list_reasons(log.errors)))


def describe_tensors(network: Any, specs: tuple[TensorSpec, ...], *, are_inputs: bool) -> tuple[TensorSpec, ...]:
    """Return the model's tensors with the datatypes of the network, because the parser converts FP64 to FP32."""
    tensors = _list_inputs(network) if are_inputs else _list_outputs(network)
    dtypes = {tensor.name: tensor.dtype.name for tensor in tensors}
    return tuple(
        spec.model_copy(update={"dtype": _DTYPES.get(dtypes[spec.name], spec.dtype)})
        for spec in specs
        if spec.name in dtypes
    )


def _list_inputs(network: Any) -> Iterator[Any]:
    return (network.get_input(index) for index in range(network.num_inputs))


def _list_outputs(network: Any) -> Iterator[Any]:
    return (network.get_output(index) for index in range(network.num_outputs))


def _strongly_typed(module: Any) -> int:
    """Return the creation flags. TensorRT 10 needs a flag for strong typing; 11 always has it and ignores the flag."""
    flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _find_range(profile: Profile, name: str) -> ShapeRange:
    shapes = profile.inputs.get(name)
    if shapes is not None:
        return shapes
    raise BuildError(
        "an input with open dimensions has no shape range",
        where=f"profile {profile.name}, input {name}",
        remedy="give it min, opt and max in spec.profiles",
        reason="ProfileRefused",
    )


def _find_values(profile: Profile, tensor: Any) -> ValueRange:
    sizes = profile.inputs.get(tensor.name)
    if sizes is not None and sizes.values is not None:
        return sizes.values
    spec = TensorSpec(name=tensor.name, dtype=_DTYPES[tensor.dtype.name], shape=tuple(tensor.shape))
    raise BuildError(
        "an input holds sizes or shapes, and the profile has no values for it",
        where=f"profile {profile.name}, input {tensor.name}",
        remedy=f"add below the profile's inputs, with your own values: {values_entry(spec)}",
        reason="MissingValues",
    )


def _profile_refused(profile: Profile, tensor: str, said: str) -> BuildError:
    return BuildError(
        "the builder refuses the profile",
        where=f"profile {profile.name}, input {tensor}" if tensor else f"profile {profile.name}",
        why=said,
        remedy="correct the shape ranges in spec.profiles",
        reason="ProfileRefused",
    )


def _describe_error(error: Any) -> str:
    description = str(error.desc()).strip()
    # Message of the parser for an operator without an import function.
    if description == "false":
        description = "the operator is not supported"
    if error.node() == _NO_NODE:
        return f"{error.code().name}: {description}"
    return f"node {error.node()} {error.node_name()!r} ({error.node_operator()}): {description}"


def _list_siblings(model: Path, errors: list[Any]) -> Iterator[str]:
    """List the other nodes of every refused operator, because the parser stops at the first node without a plugin."""
    refused = {error.node_operator(): error for error in errors if _is_unsupported(error)}
    if not refused:
        return
    import onnx

    named = {error.node() for error in errors}
    for index, node in enumerate(onnx.load(str(model), load_external_data=False).graph.node):
        if node.op_type in refused and index not in named:
            yield f"node {index} {node.name!r} ({node.op_type}): the same operator"


def _is_unsupported(error: Any) -> bool:
    if error.node() == _NO_NODE:
        return False
    description = str(error.desc()).lower()
    return error.code().name.startswith("UNSUPPORTED") or "plugin" in description
