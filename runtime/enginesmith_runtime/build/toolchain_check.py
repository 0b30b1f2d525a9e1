"""Whether this process has the toolchain of a request: an image may hold another one than the catalog says."""

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.backends import Toolchain
from enginesmith_contract.errors import BuildError
from enginesmith_contract.matrix.versions import major_of
from enginesmith_runtime.engines.interface import Builder
from enginesmith_runtime.engines.registry import installed_toolchains

__all__ = ["check_toolchain"]


def check_toolchain(build_with: Builder, wanted: Toolchain) -> None:
    """Hold what is installed against what is wanted.

    Args:
        build_with: builds with what is installed.
        wanted: of the request.

    Raises:
        BuildError: the backend is not installed, or in another version, or for another CUDA.
    """
    installed = installed_toolchains()
    found = [one for one in installed if one.backend is wanted.backend]
    title = traits(wanted.backend).title
    if not found:
        others = ", ".join(f"{traits(one.backend).title} {one.version}" for one in installed)
        raise BuildError(
            f"{title} is not installed",
            where=_place(wanted),
            why=f"it has only {others or 'no backend at all'}",
            remedy=_remedy(wanted),
            reason="ToolchainMissing",
        )
    version, cuda = build_with.version(), found[0].cuda
    if version != wanted.version:
        raise _differs(wanted, f"{title} {version} is installed, {wanted.version} was asked for")
    if cuda and wanted.cuda and major_of(cuda) != major_of(wanted.cuda):
        raise _differs(wanted, f"{title} {version} is installed for CUDA {cuda}, CUDA {wanted.cuda} was asked for")


def _differs(wanted: Toolchain, why: str) -> BuildError:
    return BuildError(
        "the installed library is not the one that the request names",
        where=_place(wanted),
        why=why,
        remedy=_remedy(wanted),
        reason="ToolchainDiffers",
    )


def _place(wanted: Toolchain) -> str:
    return f"toolchain {wanted.name}, image {wanted.image}" if wanted.image else f"toolchain {wanted.name}"


def _remedy(wanted: Toolchain) -> str:
    if wanted.image:
        return (
            f"correct entry {wanted.name} of the toolchain catalog: its backend, version, cuda and image must belong "
            "together, as `hack/images` prints them"
        )
    package = traits(wanted.backend).install
    return f"install {package} {wanted.version}" if package else "ask for the installed version"
