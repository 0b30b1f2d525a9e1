"""Loads plugin libraries: those of TensorRT and those of an engine.

A library is machine code that this process runs, so its digest is compared with the engine's key first. Then the
dynamic linker loads it before TensorRT does, because TensorRT only returns None and logs nothing before the first
Builder or Runtime exists. A process loads a library only once, even if several engines have it.
"""

import ctypes
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from enginesmith_contract.errors import EnginesmithError
from enginesmith_runtime.local_files.digests import digest_file

__all__ = ["PLUGIN_FOLDER", "load_plugins"]

PLUGIN_FOLDER: Final = "plugins"
"""Folder next to a plan with the plan's plugin libraries, numbered in loading order."""

_ENTRY_POINTS: Final = ("getCreators", "getPluginCreators")
"""Functions that TensorRT calls in a library. A library without them must register its plugins when it is loaded."""

# Header of an ELF file: <elf.h>, Elf64_Ehdr.
_MAGIC: Final = b"\x7fELF"
_CLASS_64: Final = 2
_SHARED_OBJECT: Final = 3
_MACHINES: Final = {62: "x86_64", 183: "aarch64"}
_HEADER_BYTES: Final = 20

_LOADED: Final[set[str]] = set()
"""Digests of the libraries that this process has loaded, because TensorRT does not register a plugin twice."""


class _Refusal(NamedTuple):
    library: Path
    failure: type[EnginesmithError]

    def because(self, why: str) -> EnginesmithError:
        name = self.library.name
        return self.failure(
            "a plugin library cannot be loaded",
            where=name,
            why=why.replace(str(self.library), name),
            remedy="build it for this version of TensorRT and this kind of machine, and name it once",
            reason="PluginRefused",
        )


def load_plugins(
    module: Any,
    log: Any,
    libraries: Sequence[Path],
    failure: type[EnginesmithError],
    *,
    digests: Sequence[str],
) -> None:
    """Register TensorRT's own plugins, then load the given libraries in order.

    Args:
        module: the library.
        log: Logger of the library.
        libraries: Files on the local disk in loading order.
        failure: Class of the error to raise.
        digests: SHA-256 of each library, from the engine's key.

    Raises:
        EnginesmithError: `PluginDiffers` if the files are not those of the key, `PluginRefused` if one cannot be
            loaded.
    """
    module.init_libnvinfer_plugins(log, "")
    _check_digests(libraries, digests, failure)
    for library, digest in zip(libraries, digests, strict=True):
        if digest in _LOADED:
            continue
        refusal = _Refusal(library, failure)
        _check_header(library, refusal)
        _load(module.get_plugin_registry(), log, library, refusal)
        _LOADED.add(digest)


def _check_digests(libraries: Sequence[Path], digests: Sequence[str], failure: type[EnginesmithError]) -> None:
    found = tuple(digest_file(library).digest for library in libraries)
    if found == tuple(digests):
        return
    raise failure(
        "the plugin libraries are not those of the engine's key",
        where=", ".join(library.name for library in libraries) or PLUGIN_FOLDER,
        why=f"the key names {_in_short(digests)}, the files are {_in_short(found)}",
        remedy="fetch the engine again; if it repeats, build it again",
        reason="PluginDiffers",
    )


def _check_header(library: Path, refusal: _Refusal) -> None:
    with library.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    kind, machine = (int.from_bytes(head[start : start + 2], "little") for start in (16, 18))
    if len(head) < _HEADER_BYTES or not head.startswith(_MAGIC):
        raise refusal.because("it is not a shared library (it has no ELF header)")
    if kind != _SHARED_OBJECT:
        raise refusal.because("it is an ELF file, but not a shared library")
    here = platform.machine()
    if head[4] != _CLASS_64 or _MACHINES.get(machine) != here:
        bits = 64 if head[4] == _CLASS_64 else 32
        raise refusal.because(f"it is for {_MACHINES.get(machine, f'machine {machine}')}, {bits} bit; this is {here}")


def _load(registry: Any, log: Any, library: Path, refusal: _Refusal) -> None:
    before = len(registry.all_creators)
    try:
        # Resolve all symbols now. Otherwise a missing symbol would end the process during an inference.
        handle = ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as error:
        raise refusal.because(str(error)) from error
    if not any(hasattr(handle, name) for name in _ENTRY_POINTS):
        if len(registry.all_creators) > before:
            return
        raise refusal.because(f"it has neither {' nor '.join(_ENTRY_POINTS)}, and registers no plugin by itself")
    mark = log.mark()
    try:
        known = registry.load_library(str(library))
    except Exception as error:  # pybind translates C++ exceptions
        raise refusal.because(str(error)) from error
    if known is None:
        raise refusal.because(" | ".join(log.said_since(mark)) or "a plugin of the same name is already registered")


def _in_short(digests: Sequence[str]) -> str:
    return ", ".join(digest[:12] for digest in digests) or "none"
