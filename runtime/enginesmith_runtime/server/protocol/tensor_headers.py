"""Checks the input headers of a request: each input once, with its datatype, rank, fixed dimensions and size.

Profiles limit the other dimensions: see `profile_choice`.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from enginesmith_contract.protos.inference_pb2 import ModelInferRequest
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.protocol.tensor_place import TensorPlace, read_place

__all__ = ["InputHeader", "check_headers", "invalid", "quoted"]

InferInput = ModelInferRequest.InferInputTensor


class InputHeader(NamedTuple):
    """Description of one input in a request, checked against the model.

    Attributes:
        place: Place of the input in shared memory; None if it is in the message.
    """

    spec: TensorSpec
    shape: tuple[int, ...]
    place: TensorPlace | None

    @property
    def size(self) -> int:
        """Return the size of the contents in bytes; 0 if it is empty, or BYTES, whose elements have different sizes."""
        return 0 if self.spec.dtype is DType.BYTES else math.prod(self.shape) * self.spec.dtype.numpy.itemsize


def check_headers(request: ModelInferRequest, specs: Mapping[str, TensorSpec]) -> tuple[InputHeader, ...]:
    """Return the headers of a request in its order, and check that each input of the model occurs once and fits.

    Args:
        request: Request with or without its raw contents.
        specs: Inputs of the model by name.

    Raises:
        ProtocolError: INVALID_ARGUMENT naming the input.
    """
    _check_names(request, specs)
    return tuple(_check_header(tensor, specs[tensor.name]) for tensor in request.inputs)


def quoted(names: Iterable[str]) -> str:
    """Return names as messages list them."""
    return ", ".join(f"'{name}'" for name in names)


def invalid(message: str) -> ProtocolError:
    """Return the error of a request that does not fit the model."""
    return ProtocolError(Code.INVALID_ARGUMENT, message)


def _check_names(request: ModelInferRequest, specs: Mapping[str, TensorSpec]) -> None:
    given: set[str] = set()
    for tensor in request.inputs:
        if tensor.name not in specs:
            raise invalid(f"input '{tensor.name}' is not one of the model's inputs: {quoted(specs)}")
        if tensor.name in given:
            raise invalid(f"input '{tensor.name}' is given twice")
        given.add(tensor.name)
    missing = [name for name in specs if name not in given]
    if missing:
        raise invalid(f"input {quoted(missing)} is missing; the model takes {quoted(specs)}")


def _check_header(tensor: InferInput, spec: TensorSpec) -> InputHeader:
    """Check datatype and shape against the model's, and the place against both."""
    if tensor.datatype != spec.dtype:
        raise invalid(f"input '{spec.name}': datatype is '{tensor.datatype}', the model takes {spec.dtype}")
    shape = tuple(tensor.shape)
    if len(shape) != len(spec.shape):
        raise invalid(
            f"input '{spec.name}': shape {list(shape)} has {len(shape)} dimensions, the model takes "
            f"{len(spec.shape)}: {list(spec.shape)}"
        )
    if any(value < 0 for value in shape):
        raise invalid(f"input '{spec.name}': shape {list(shape)} has a negative dimension")
    for axis, (value, wanted) in enumerate(zip(shape, spec.shape, strict=True)):
        if wanted >= 0 and value != wanted:
            raise invalid(
                f"input '{spec.name}': dimension {axis} of shape {list(shape)} is {value}, the model takes {wanted}: "
                f"{list(spec.shape)}"
            )
    return InputHeader(spec, shape, _check_place(tensor, spec, shape))


def _check_place(tensor: InferInput, spec: TensorSpec, shape: tuple[int, ...]) -> TensorPlace | None:
    place = read_place(f"input '{spec.name}'", tensor.parameters)
    if place is None or spec.dtype is DType.BYTES:
        return place
    wanted = math.prod(shape) * spec.dtype.numpy.itemsize
    if place.size != wanted:
        raise invalid(
            f"input '{spec.name}': {place.size} bytes of shared memory region '{place.region}', but {spec.dtype} "
            f"{list(shape)} takes {wanted}"
        )
    return place
