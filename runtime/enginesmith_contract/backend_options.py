"""Options in a target's `backendOptions` for the library that runs its engine.

Each library has one table, and both sides read it. The operator refuses a document with an unknown option or an invalid
value, and the runtime sets the options of the document.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from enginesmith_contract.backend_traits import OptionTable, traits
from enginesmith_contract.backends import Backend

__all__ = ["PROVIDER_PREFIX", "BackendOption", "OptionProblem", "check_option", "known_options", "options_in_key"]

PROVIDER_PREFIX: Final = "provider."
"""Prefix of the options of ONNX Runtime's execution provider. The provider defines their names and values."""

_QUANTITY: Final = re.compile(r"(?P<number>[0-9]{1,15})(?P<suffix>|[KMGT]i|[kMGT])")
_SUFFIXES: Final = {
    "": 1,
    **{f"{letter}i": 1 << (10 * power) for power, letter in enumerate("KMGT", start=1)},
    **{letter: 1000**power for power, letter in enumerate("kMGT", start=1)},
}
_SWITCH: Final = {"true": True, "false": False}
_AUTOMATIC: Final = "auto"
_MOST_THREADS: Final = 1024
_MOST_GRAPHS: Final = 1024
_DIGITS: Final = re.compile("[0-9]{1,9}")


class BackendOption(NamedTuple):
    """One option.

    Attributes:
        values: Description of the valid values.
        read: Function that parses the value; it raises ValueError if the text is not a valid value.
    """

    values: str
    read: Callable[[str], object]


class OptionProblem(NamedTuple):
    """Reason why an option is invalid. `known` lists the valid names; it is empty if the value is invalid."""

    reason: str
    known: tuple[str, ...] = ()


def known_options(backend: Backend) -> Mapping[str, BackendOption]:
    """Return the options of a backend by name, without those of an execution provider."""
    table = traits(backend).options
    return _TABLES[table] if table is not None else {}


def check_option(backend: Backend, name: str, value: str) -> OptionProblem | None:
    """Return the problem of one option, or None if it is valid."""
    if traits(backend).execution_providers and name.startswith(PROVIDER_PREFIX):
        bare = name.removeprefix(PROVIDER_PREFIX)
        return None if bare else OptionProblem(f"no option of the provider follows {PROVIDER_PREFIX!r}")
    options = known_options(backend)
    if name not in options:
        known = (*options, f"{PROVIDER_PREFIX}<name>") if traits(backend).execution_providers else tuple(options)
        return OptionProblem(f"the backend {backend} has no such option", known)
    try:
        options[name].read(value)
    except ValueError:
        return OptionProblem(f"expected {options[name].values}")
    return None


def options_in_key(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options that change the outputs of an engine: those of the execution provider, which compiles it.

    Args:
        options: `backendOptions`, or the flags of an engine's key, which contain the same options.
    """
    return {name: value for name, value in sorted(options.items()) if name.startswith(PROVIDER_PREFIX)}


def _switch(text: str) -> bool:
    return bool(_one_of(_SWITCH, text))


def _mode(text: str) -> str:
    return str(_one_of({"sequential": "sequential", "parallel": "parallel"}, text))


def _one_of(values: Mapping[str, object], text: str) -> object:
    if text not in values:
        raise ValueError(text)
    return values[text]


def _number(text: str, least: int, most: int) -> int:
    if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
        raise ValueError(text)
    return int(text)


def _bytes(text: str) -> int:
    found = _QUANTITY.fullmatch(text)
    if found is None or int(found["number"]) == 0:
        raise ValueError(text)
    return int(found["number"]) * int(_SUFFIXES[found["suffix"]])


def _budget(text: str) -> int | None:
    if text == _AUTOMATIC:
        return None
    return 0 if text == "0" else _bytes(text)


_SWITCHED: Final = BackendOption("'true' or 'false'", _switch)
_THREADS: Final = BackendOption(f"1 to {_MOST_THREADS}", lambda text: _number(text, 1, _MOST_THREADS))
_SIZE: Final = BackendOption("a size such as 512Mi or 2G", _bytes)

_ONNXRUNTIME: Final[Mapping[str, BackendOption]] = {
    "intraOpThreads": _THREADS,
    "interOpThreads": _THREADS,
    "executionMode": BackendOption("sequential or parallel", _mode),
    "memoryPattern": _SWITCHED,
    "cpuArena": _SWITCHED,
    "spinning": _SWITCHED,
}

_NVINFER: Final[Mapping[str, BackendOption]] = {
    "cudaGraphs": BackendOption(f"0 to {_MOST_GRAPHS}", lambda text: _number(text, 0, _MOST_GRAPHS)),
    "spin": _SWITCHED,
    "pinnedMemoryLimit": _SIZE,
    "deviceMemoryLimit": _SIZE,
    "weightStreamingBudget": BackendOption("auto, 0 or a size such as 512Mi", _budget),
}

_TABLES: Final[Mapping[OptionTable, Mapping[str, BackendOption]]] = {
    OptionTable.NVINFER: _NVINFER,
    OptionTable.ONNXRUNTIME: _ONNXRUNTIME,
}
