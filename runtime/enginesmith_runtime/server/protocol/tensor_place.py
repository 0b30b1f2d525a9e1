"""The parameters of a request that place a tensor in shared memory."""

from collections.abc import Mapping
from dataclasses import dataclass

from enginesmith_contract.protos.inference_pb2 import InferParameter
from enginesmith_runtime.server.errors import Code, ProtocolError

__all__ = ["TensorPlace", "read_place"]

_REGION, _SIZE, _OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Place of one tensor in shared memory.

    Attributes:
        region: Name of a region, which may no longer be registered when the request runs.
        offset: Offset in the region in bytes.
        size: Size in bytes: exact for an input, and an upper limit for an output.
    """

    region: str
    offset: int
    size: int

    def parameters(self, size: int) -> dict[str, InferParameter]:
        """Return the parameters of an output of `size` bytes that was written here."""
        said = {_REGION: InferParameter(string_param=self.region), _SIZE: InferParameter(int64_param=size)}
        return {**said, _OFFSET: InferParameter(int64_param=self.offset)} if self.offset else said


def read_place(tensor: str, parameters: Mapping[str, InferParameter]) -> TensorPlace | None:
    """Return the place of `tensor` ("input 'x'") in shared memory, or None if it is in the message.

    Raises:
        ProtocolError: INVALID_ARGUMENT naming the parameter.
    """
    if _REGION not in parameters:
        return None
    region = parameters[_REGION].string_param
    if not region:
        raise _invalid(tensor, f"parameter '{_REGION}' is not a name")
    if _SIZE not in parameters:
        raise _invalid(tensor, f"parameter '{_SIZE}' is missing; it belongs with '{_REGION}'")
    return TensorPlace(region, _number(tensor, _OFFSET, parameters), _number(tensor, _SIZE, parameters))


def _number(tensor: str, name: str, parameters: Mapping[str, InferParameter]) -> int:
    if name not in parameters:
        return 0
    parameter = parameters[name]
    match parameter.WhichOneof("parameter_choice"):
        case "int64_param":
            value = parameter.int64_param
        case "uint64_param":
            value = parameter.uint64_param
        case _:
            raise _invalid(tensor, f"parameter '{name}' is not an int64")
    if value < 0:
        raise _invalid(tensor, f"parameter '{name}' is {value}")
    return value


def _invalid(tensor: str, why: str) -> ProtocolError:
    return ProtocolError(Code.INVALID_ARGUMENT, f"{tensor}: {why}")
