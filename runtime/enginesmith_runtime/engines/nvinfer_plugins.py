"""Plugin libraries: the library's own, and those that an engine brings."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from enginesmith_contract.errors import EnginesmithError

__all__ = ["PLUGIN_FOLDER", "load_plugins"]

PLUGIN_FOLDER: Final = "plugins"
"""Folder beside a plan that holds its plugin libraries, numbered in loading order."""


def load_plugins(module: Any, log: Any, libraries: Iterable[Path], failure: type[EnginesmithError]) -> None:  # noqa: ANN401 - untyped library
    """Register the library's own plugins, then load the given ones in order.

    Raises:
        EnginesmithError: of the class `failure`, where a library cannot be loaded.
    """
    module.init_libnvinfer_plugins(log, "")
    registry = module.get_plugin_registry()
    for library in libraries:
        try:
            handle = registry.load_library(str(library))
        except Exception as error:  # the binding raises what pybind makes of a C++ exception
            raise _refused(library, str(error), failure) from error
        if handle is None:
            raise _refused(library, " | ".join(log.errors) or "a plugin in it is already registered", failure)


def _refused(library: Path, why: str, failure: type[EnginesmithError]) -> EnginesmithError:
    return failure(
        "a plugin library cannot be loaded",
        where=library.name,
        why=why,
        remedy="build it for this version of the library, and name it once",
        reason="PluginRefused",
    )
