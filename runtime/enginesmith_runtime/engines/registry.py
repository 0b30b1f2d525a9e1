"""Which backends there are, and which toolchains are installed, without importing any of their libraries.

A backend's library takes a second to import, or aborts the process where there is no driver; so a backend's module is
imported when it is asked for, and versions come from the packages' metadata.
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
    """Return the builder of a backend; imports the backend's module, and its library at the first use."""
    return cast("Builder", import_module(module_name(backend)).create_builder())


def loader(backend: Backend) -> Loader:
    """Return the loader of a backend; imports the backend's module, and its library at the first use."""
    return cast("Loader", import_module(module_name(backend)).create_loader())


def module_name(backend: Backend) -> str:
    """Return the full name of a backend's module."""
    return f"enginesmith_runtime.engines.{traits(backend).module}"


def installed_version(wheel: str) -> str | None:
    """Return a package's version as its library says it (no `.postN`), None where it is not installed."""
    try:
        return _POST_RELEASE.sub("", version(wheel))
    except PackageNotFoundError:
        return None


def installed_toolchains() -> tuple[Toolchain, ...]:
    """Return the toolchains of this Python environment, TensorRT first, from package metadata alone."""
    return (*_installed_packages(), *_installed_providers())


def _installed_packages() -> Iterator[Toolchain]:
    """Yield one toolchain for each backend that packages bring; the bindings carry the version of their library."""
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
