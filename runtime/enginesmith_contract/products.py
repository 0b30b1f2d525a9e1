"""GPU products as GPU Feature Discovery spells them, and the spelling that keys and manifests use.

One card has several spellings: driver 460 says `A100-SXM4-40GB` where newer ones say `NVIDIA-A100-SXM4-40GB`, sharing
appends `-SHARED`, a MIG slice appends `-MIG-1g.5gb`. Keys must not change with any of these, so both sides use
`canonical_product`.

Source of the rules: GPU Feature Discovery (NVIDIA/k8s-device-plugin, internal/lm) and node dumps.
"""

import re
from typing import Final, NamedTuple

__all__ = [
    "MIG_INVALID",
    "ProductName",
    "canonical_mig_profile",
    "canonical_product",
    "product_from_device_name",
    "split_product",
]

MIG_INVALID: Final = "INVALID"
"""The MIG profile of a node whose GPUs are partitioned differently under MIG strategy `single`."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9\-_. ]")
_SHARED: Final = "-SHARED"
# An attribute follows the size after "." or "+" (`1g.24gb.me`), or after "-" where a slice lacks it (`1g.24gb-me`).
_MIG: Final = re.compile(r"-MIG-(?P<profile>INVALID|(?:\d+c\.)?\d+g\.[A-Za-z0-9.+-]+)$")
# Brands in the place of "NVIDIA", and the CUDA device names of Tegra, which never had a prefix.
_OWN_PREFIX: Final = re.compile(r"(NVIDIA|Tesla|Quadro|GRID)-|(Orin|Xavier|Thor|Tegra)\b")


class ProductName(NamedTuple):
    """The parts of a product label.

    Attributes:
        product: Canonical product without suffixes.
        mig_profile: MIG profile such as "1g.5gb", `MIG_INVALID`, or None if the label names a whole GPU.
        shared: Whether the label has the sharing suffix. A GPU without the suffix may also be shared.
    """

    product: str
    mig_profile: str | None
    shared: bool


def split_product(label: str) -> ProductName:
    """Split a `gpu.product` label into its parts. Suffixes are `-MIG-<profile>` and then `-SHARED`."""
    bare = label.removesuffix(_SHARED)
    shared = bare != label
    slice_suffix = _MIG.search(bare)
    if slice_suffix is None:
        return ProductName(_with_prefix(bare), None, shared)
    return ProductName(_with_prefix(bare[: slice_suffix.start()]), slice_suffix["profile"], shared)


def canonical_product(label: str) -> str:
    """Return the canonical spelling of a product, independent of the driver and the suffixes of sharing and MIG."""
    return split_product(label).product


def canonical_mig_profile(profile: str | None) -> str | None:
    """Return the canonical spelling of a MIG profile: labels have `1g.10gb.me` and the driver has `1g.10gb+me`.

    `1g.24gb-me` is another slice, one without media engines, and stays as it is.
    """
    return None if profile is None else profile.replace("+", ".")


def product_from_device_name(name: str) -> str:
    """Return the canonical product of a device name as NVML or CUDA gives it ("NVIDIA H100 80GB HBM3")."""
    return canonical_product("-".join(_UNSAFE.sub("", name.replace("+", ".")).split()))


def _with_prefix(bare: str) -> str:
    return bare if not bare or _OWN_PREFIX.match(bare) else f"NVIDIA-{bare}"
