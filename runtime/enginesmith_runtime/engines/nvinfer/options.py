"""Options of TensorRT at run time, from a target's `backendOptions`."""

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
    """Options of a running engine.

    Attributes:
        cuda_graphs: Number of CUDA graphs of one instance; 0 to disable them.
        spin: Whether a thread waits for the GPU with a busy loop, which saves the time to wake up.
        pinned_memory_limit: Bytes for inputs and outputs of one instance, on the host and on the device each.
        device_memory_limit: Bytes of the engine and all its instances on the device; None for no limit.
        weight_streaming_budget: Bytes of streamable weights that stay on the device; None for the library's
            recommendation.
    """

    cuda_graphs: int = 16
    spin: bool = True
    pinned_memory_limit: int = 1 << 30
    device_memory_limit: int | None = None
    weight_streaming_budget: int | None = None


def read_options(options: Mapping[str, str]) -> ExecutionOptions:
    """Return the options.

    Raises:
        SpecError: An option is unknown or has an invalid value.
    """
    known = known_options(Backend.TENSORRT)
    fields: dict[str, Any] = {}
    for name, value in options.items():
        problem = check_option(Backend.TENSORRT, name, value)
        if problem is not None:
            raise option_refused(name, value, problem)
        fields[_FIELDS[name]] = known[name].read(value)
    return ExecutionOptions(**fields)
