"""Names with `*`, which an EnginePolicy allows. The chart's admission policy reads them in the same way."""

import re
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Final

from pydantic import Field

from enginesmith_contract.products import canonical_mig_profile, canonical_product

__all__ = [
    "WHOLE_GPU",
    "HostPattern",
    "ImagePattern",
    "MigChoice",
    "NamePattern",
    "ProductPattern",
    "allows_host",
    "allows_image",
    "allows_mig",
    "allows_product",
    "matches_any",
]

WHOLE_GPU: Final = "whole"
"""What stands for a GPU without partitions in a list of MIG profiles."""
_ANY: Final = ".*"
_HOST: Final = "[-a-z0-9._]*"

_WILDCARDS: Final = r"^[A-Za-z0-9*]([-A-Za-z0-9._*]*[A-Za-z0-9*])?$"

NamePattern = Annotated[str, Field(min_length=1, max_length=253, pattern=_WILDCARDS)]
"""Name of an object, with `*` for any characters."""

ProductPattern = Annotated[str, Field(min_length=1, max_length=63, pattern=_WILDCARDS)]
"""GPU product as in the node label `nvidia.com/gpu.product`, with `*` for any characters."""

HostPattern = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9*]([-A-Za-z0-9._*]*[A-Za-z0-9*])?(:[0-9]{1,5})?$")
]
"""Bucket, host with its port, owner or claim, with `*` for letters, digits, `-`, `.` and `_`."""

ImagePattern = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        pattern=r"^[A-Za-z0-9*]([-A-Za-z0-9._*]*[A-Za-z0-9*])?(:[0-9]{1,5})?/[A-Za-z0-9*][-A-Za-z0-9._*/:@]*$",
    ),
]
"""Image with its registry; `*` stands for characters of a host before the first `/`, and for any after it."""

MigChoice = Annotated[
    str,
    Field(
        min_length=1,
        max_length=32,
        pattern=r"^(whole|([1-7]c\.)?[1-7]g\.[0-9]{1,3}gb([+.](me|gfx|me\.all)|-me)?)$",
    ),
]
"""MIG profile, or `whole`."""


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name matches one of the patterns."""
    return any(_compiled(pattern, _ANY).fullmatch(name) for pattern in patterns)


def allows_host(host: str, patterns: Iterable[str]) -> bool:
    """Whether what follows a URI's scheme matches one of the patterns, in upper or lower case."""
    return any(_compiled(pattern.lower(), _HOST).fullmatch(host.lower()) for pattern in patterns)


def allows_image(image: str, patterns: Iterable[str]) -> bool:
    """Whether an image matches one of the patterns; one without a registry is of docker.io."""
    host, slash, rest = image.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, rest = "docker.io", image
    split = (pattern.partition("/") for pattern in patterns)
    return any(allows_host(host, [registry]) and matches_any(rest, [path]) for registry, _, path in split)


def allows_product(product: str, patterns: Iterable[str]) -> bool:
    """Whether a GPU product matches one of the patterns, whatever driver spelled it."""
    bare = (pattern if pattern.startswith("*") else canonical_product(pattern) for pattern in patterns)
    return matches_any(canonical_product(product), bare)


def allows_mig(profile: str | None, choices: Iterable[str]) -> bool:
    """Whether a MIG profile, or a whole GPU (None), is one of the choices."""
    return (canonical_mig_profile(profile) or WHOLE_GPU) in map(canonical_mig_profile, choices)


@cache
def _compiled(pattern: str, star: str) -> re.Pattern[str]:
    return re.compile(star.join(map(re.escape, pattern.split("*"))), re.ASCII)
