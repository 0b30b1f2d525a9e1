"""Which backends there are, and which toolchains are installed, without importing any of their libraries.

A backend's library takes a second to import, or aborts the process where there is no driver; so a backend's module is
imported when it is asked for, and versions come from the packages' metadata.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Final, NamedTuple, cast

from enginesmith_contract.backends import Backend, Toolchain
from enginesmith_contract.providers import list_providers
from enginesmith_runtime.engines.interface import Builder, Loader

__all__ = ["builder", "installed_toolchains", "installed_version", "loader"]


class _Wheel(NamedTuple):
    """A package that brings a TensorRT; `cuda` is in its name because one version is built for several."""

    backend: Backend
    name: str
    cuda: str | None


_MODULES: Final = {
    Backend.TENSORRT: "enginesmith_runtime.engines.tensorrt_backend",
    Backend.TENSORRT_RTX: "enginesmith_runtime.engines.tensorrt_rtx_backend",
    Backend.ONNXRUNTIME: "enginesmith_runtime.engines.onnxruntime_backend",
}

# The bindings carry the version of the library that they are for; the package of the plain name only selects a CUDA.
# A plain "tensorrt" last: NVIDIA's container images install the bindings under it.
_WHEELS: Final = (
    _Wheel(Backend.TENSORRT, "tensorrt-cu13-bindings", "13"),
    _Wheel(Backend.TENSORRT, "tensorrt-cu12-bindings", "12"),
    _Wheel(Backend.TENSORRT, "tensorrt", None),
    _Wheel(Backend.TENSORRT_RTX, "tensorrt-rtx-cu13-bindings", "13"),
    _Wheel(Backend.TENSORRT_RTX, "tensorrt-rtx-cu12-bindings", "12"),
)

_POST_RELEASE = re.compile(r"\.post\d+$")


def builder(backend: Backend) -> Builder:
    """Return the builder of a backend; imports the backend's module, and its library at the first use."""
    return cast("Builder", import_module(_MODULES[backend]).create_builder())


def loader(backend: Backend) -> Loader:
    """Return the loader of a backend; imports the backend's module, and its library at the first use."""
    return cast("Loader", import_module(_MODULES[backend]).create_loader())


def installed_version(wheel: str) -> str | None:
    """Return a package's version as its library says it (no `.postN`), None where it is not installed."""
    try:
        return _POST_RELEASE.sub("", version(wheel))
    except PackageNotFoundError:
        return None


def installed_toolchains() -> tuple[Toolchain, ...]:
    """Return the toolchains of this Python environment, TensorRT first, from package metadata alone."""
    return (*_installed_tensorrt(), *_installed_providers())


def _installed_tensorrt() -> Iterator[Toolchain]:
    found: set[Backend] = set()
    for wheel in _WHEELS:
        installed = installed_version(wheel.name)
        if installed is None or wheel.backend in found:
            continue
        found.add(wheel.backend)
        yield Toolchain(name=wheel.name, backend=wheel.backend, version=installed, cuda=wheel.cuda)


def _installed_providers() -> Iterator[Toolchain]:
    for provider in list_providers():
        installed = installed_version(provider.wheel)
        if installed is not None:
            yield Toolchain(name=provider.wheel, backend=Backend.ONNXRUNTIME, version=installed, provider=provider.name)
