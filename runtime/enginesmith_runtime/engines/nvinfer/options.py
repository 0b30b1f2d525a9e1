"""What a target's `backendOptions` may say to TensorRT at run time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from enginesmith_contract.backend_options import check_option, known_options
from enginesmith_contract.backends import Backend
from enginesmith_runtime.engines.option_errors import option_refused

__all__ = ["ExecutionOptions", "read_options"]

_FIELDS: Final = {
    "cudaGraphs": "cuda_graphs",
    "spin": "spin",
    "pinnedMemoryLimit": "pinned_memory_limit",
    "deviceMemoryLimit": "device_memory_limit",
    "weightStreamingBudget": "weight_streaming_budget",
}


@dataclass(frozen=True, kw_only=True)
class ExecutionOptions:
    """How an engine runs.

    Attributes:
        cuda_graphs: of one instance; 0: none are recorded.
        spin: whether a thread burns its CPU while it waits for the GPU, which saves the time that it takes to wake up.
        pinned_memory_limit: bytes of inputs and outputs of one instance, as much on the host as on the device.
        device_memory_limit: bytes of the engine and all its instances on the device; None: what the device has.
        weight_streaming_budget: bytes of streamable weights that stay on the device; None: what the library advises.
    """

    cuda_graphs: int = 16
    spin: bool = True
    pinned_memory_limit: int = 1 << 30
    device_memory_limit: int | None = None
    weight_streaming_budget: int | None = None


def read_options(options: Mapping[str, str]) -> ExecutionOptions:
    """Return the options.

    Raises:
        SpecError: one is unknown, or has a value that it cannot have.
    """
    known = known_options(Backend.TENSORRT)
    fields: dict[str, Any] = {}
    for name, value in options.items():
        problem = check_option(Backend.TENSORRT, name, value)
        if problem is not None:
            raise option_refused(name, value, problem)
        fields[_FIELDS[name]] = known[name].read(value)
    return ExecutionOptions(**fields)
