"""The parameters by which a request says that a tensor lies in shared memory, or shall be left there."""

from collections.abc import Mapping
from dataclasses import dataclass

from enginesmith_contract.protos.inference_pb2 import InferParameter
from enginesmith_runtime.server.errors import Code, ProtocolError

__all__ = ["TensorPlace", "read_place"]

_REGION, _SIZE, _OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where one tensor lies.

    Attributes:
        region: name of a registered region, which may be gone when the request runs.
        offset: into the region, in bytes.
        size: of an input, exactly; of an output, at most.
    """

    region: str
    offset: int
    size: int

    def parameters(self, size: int) -> dict[str, InferParameter]:
        """Return what an answer says of an output of `size` bytes that was left here."""
        said = {_REGION: InferParameter(string_param=self.region), _SIZE: InferParameter(int64_param=size)}
        return {**said, _OFFSET: InferParameter(int64_param=self.offset)} if self.offset else said


def read_place(tensor: str, parameters: Mapping[str, InferParameter]) -> TensorPlace | None:
    """Return where `tensor` ("input 'x'") lies; None: in the message.

    Raises:
        ProtocolError: INVALID_ARGUMENT naming the parameter.
    """
    if _REGION not in parameters:
        return None
    region = parameters[_REGION].string_param
    if not region:
        raise _invalid(tensor, f"parameter '{_REGION}' is no name")
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
            raise _invalid(tensor, f"parameter '{name}' is no int64")
    if value < 0:
        raise _invalid(tensor, f"parameter '{name}' is {value}")
    return value


def _invalid(tensor: str, why: str) -> ProtocolError:
    return ProtocolError(Code.INVALID_ARGUMENT, f"{tensor}: {why}")
