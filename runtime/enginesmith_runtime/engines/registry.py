"""Finds backends and installed toolchains without importing their libraries.

The import of a backend's library takes a second, and some libraries abort the process if there is no driver. So a
backend's module is imported only when it is needed, and versions come from package metadata.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import cast

from enginesmith_contract.backend_traits import list_traits, traits
from enginesmith_contract.backends import Backend, Toolchain
from enginesmith_contract.providers import list_providers
from enginesmith_runtime.engines.interface import Builder, Loader

__all__ = ["builder", "installed_toolchains", "installed_version", "loader", "module_name"]


_POST_RELEASE = re.compile(r"\.post\d+$")


def builder(backend: Backend) -> Builder:
    """Return the builder of a backend. This imports the backend's module; its first use imports the library."""
    return cast("Builder", import_module(module_name(backend)).create_builder())


def loader(backend: Backend) -> Loader:
    """Return the loader of a backend. This imports the backend's module; its first use imports the library."""
    return cast("Loader", import_module(module_name(backend)).create_loader())


def module_name(backend: Backend) -> str:
    """Return the full name of a backend's module."""
    return f"enginesmith_runtime.engines.{traits(backend).module}"


def installed_version(wheel: str) -> str | None:
    """Return a package's version without `.postN`, as its library reports it, or None if it is not installed."""
    try:
        return _POST_RELEASE.sub("", version(wheel))
    except PackageNotFoundError:
        return None


def installed_toolchains() -> tuple[Toolchain, ...]:
    """Return the toolchains of this Python environment, TensorRT first. Only package metadata is read."""
    return (*_installed_packages(), *_installed_providers())


def _installed_packages() -> Iterator[Toolchain]:
    """Yield one toolchain for each backend from a package. The bindings have the version of their library."""
    for row in list_traits():
        for package in row.packages:
            installed = installed_version(package.name)
            if installed is not None:
                yield Toolchain(name=package.name, backend=row.backend, version=installed, cuda=package.cuda)
                break


def _installed_providers() -> Iterator[Toolchain]:
    (backend,) = (row.backend for row in list_traits() if row.execution_providers)
    for provider in list_providers():
        installed = installed_version(provider.wheel)
        if installed is not None:
            yield Toolchain(name=provider.wheel, backend=backend, version=installed, provider=provider.name)
