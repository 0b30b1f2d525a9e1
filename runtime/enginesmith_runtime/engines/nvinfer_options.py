"""What a target's `backendOptions` may say to TensorRT at run time."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from enginesmith_contract.errors import SpecError

__all__ = ["ExecutionOptions", "read_options"]

_QUANTITY: Final = re.compile(r"(?P<number>[0-9]{1,15})(?P<suffix>|[KMGT]i|[kMGT])")
_SUFFIXES: Final = {
    "": 1,
    **{f"{letter}i": 1 << (10 * power) for power, letter in enumerate("KMGT", start=1)},
    **{letter: 1000**power for power, letter in enumerate("kMGT", start=1)},
}
_SWITCH: Final = {"true": True, "false": False}
_AUTOMATIC: Final = "auto"
_MOST_GRAPHS: Final = 1024


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
    readers: dict[str, tuple[str, Callable[[str], object]]] = {
        "cudaGraphs": ("cuda_graphs", _graphs),
        "spin": ("spin", _SWITCH.__getitem__),
        "pinnedMemoryLimit": ("pinned_memory_limit", _bytes),
        "deviceMemoryLimit": ("device_memory_limit", _bytes),
        "weightStreamingBudget": ("weight_streaming_budget", _budget),
    }
    fields: dict[str, Any] = {}
    for name, value in options.items():
        if name not in readers:
            raise _refused(
                "no such option of this backend", name, f"known are {', '.join(readers)}", "correct the name"
            )
        field, read = readers[name]
        try:
            fields[field] = read(value)
        except (KeyError, ValueError) as error:
            raise _refused(
                "the option cannot be set so", name, f"{value!r} is no value of it", "correct the value"
            ) from error
    return ExecutionOptions(**fields)


def _graphs(text: str) -> int:
    number = int(text)
    if not 0 <= number <= _MOST_GRAPHS:
        raise ValueError(text)
    return number


def _bytes(text: str) -> int:
    found = _QUANTITY.fullmatch(text)
    if found is None or int(found["number"]) == 0:
        raise ValueError(text)
    return int(found["number"]) * int(_SUFFIXES[found["suffix"]])


def _budget(text: str) -> int | None:
    if text == _AUTOMATIC:
        return None
    return 0 if text == "0" else _bytes(text)


def _refused(what: str, name: str, why: str, remedy: str) -> SpecError:
    return SpecError(what, where=f"backendOptions.{name}", why=why, remedy=remedy, reason="BackendOptionInvalid")
