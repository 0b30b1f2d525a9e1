"""`spec.toolchain`: the versions that may build and serve."""

from enum import StrEnum
from typing import Annotated, Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from enginesmith_operator.api.base import ApiModel, Finding, finding_error

__all__ = ["ToolchainSpec", "ToolchainUpdate", "VersionRange"]

_LONGEST: Final = 128


def _check_range(value: str) -> str:
    if not _is_range(value):
        reason = "expected a version range as in Python requirements, such as >=10.9,<12 or ==10.13.*"
        raise finding_error(Finding(reason, _nearest_range(value)))
    return value


def _refuse_number(value: object) -> object:
    if isinstance(value, int | float):
        raise finding_error(
            Finding("expected a version range in quotes", hint='write it as ">=10.9,<12" or "==10.13.*"')
        )
    return value


def _is_range(value: str) -> bool:
    if not value.strip() or len(value) > _LONGEST:
        return False
    try:
        SpecifierSet(value)
    except InvalidSpecifier:
        return False
    return True


def _nearest_range(value: str) -> str:
    """Guess what `10.9`, `10.13.x`, `v10`, `^10.9` or `>=10.9 <12` was meant to be."""
    text = value[:_LONGEST].strip().lower()
    candidates = (",".join(text.split()), _pinned(text.removeprefix("^").removeprefix("v")))
    return next((candidate for candidate in candidates if _is_range(candidate)), "")


def _pinned(version: str) -> str:
    return f"=={version.removesuffix('.x').removesuffix('.*').removeprefix('=')}.*"


VersionRange = Annotated[
    str,
    BeforeValidator(_refuse_number),
    AfterValidator(_check_range),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": _LONGEST}),
]
"""Version range as in Python requirements (PEP 440)."""


class ToolchainUpdate(StrEnum):
    """Action if the catalog offers a newer toolchain within the range."""

    MANUAL = "manual"
    AUTO = "auto"


class ToolchainSpec(ApiModel):
    """Versions that may build and serve the engines. One toolchain is chosen once and pinned in the status.

    Attributes:
        tensorrt: Range of TensorRT versions for targets with the backend `tensorrt`. The default is every version that
            the builder supports. Within the range, the newest toolchain of the catalog that the version matrix
            allows for the GPU and the driver is chosen.
        cuda: Range of CUDA versions that the toolchain may be built for. If omitted, any version the driver supports.
        update: Action if the catalog offers a newer toolchain within the range: `manual` sets the condition
            UpdateAvailable, `auto` builds, verifies and rolls out.
    """

    tensorrt: VersionRange = ">=10,<12"
    cuda: VersionRange | None = None
    update: ToolchainUpdate = ToolchainUpdate.MANUAL

    def accepts_tensorrt(self, version: str) -> bool:
        """Whether `version` ("10.13.3.9") is in the range. A pre-release is only if the range allows pre-releases."""
        return _contains(self.tensorrt, version)

    def accepts_cuda(self, version: str | None) -> bool:
        """Whether a toolchain built for CUDA `version` ("12.9"; None if it does not use CUDA) may be used."""
        return self.cuda is None or (version is not None and _contains(self.cuda, version))


def _contains(version_range: str, version: str) -> bool:
    try:
        return SpecifierSet(version_range).contains(Version(version))
    except InvalidVersion:
        return False
