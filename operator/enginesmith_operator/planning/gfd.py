"""GPU Feature Discovery's labels as values; every quirk of that format is here and nowhere else.

Compute capability comes from `gpu.compute.*` and never from `gpu.family`: the family says "ampere" for RTX 4090 cards,
"undefined" for Thor and for Blackwell before a fix. The runtime labels are the CUDA version that the driver supports.
Source: GPU Feature Discovery in NVIDIA/k8s-device-plugin v0.20 (docs, internal/lm) and node dumps.
"""

from collections.abc import Mapping
from typing import Final

from enginesmith_contract.products import ProductName, split_product
from enginesmith_contract.record import Record

__all__ = ["GfdLabels", "MigLabels", "read_gfd_labels"]

_PREFIX: Final = "nvidia.com/"
# Only GPU Feature Discovery writes these; gpu.product alone may be a node pool's own claim.
_PROOF: Final = ("gpu.compute.major", "gpu.count", "gpu.memory", "gpu.machine", "gpu.replicas", "gpu.family")
# More MiB than any GPU has: the value is in bytes (a bug of 2022).
_BYTES_FROM: Final = 1 << 24
_UNSHARED: Final = "none"


class MigLabels(Record):
    """The labels of one MIG profile under strategy `mixed` (nvidia.com/mig-<profile>.*)."""

    profile: str
    memory_mib: int | None = None
    multiprocessors: int | None = None
    replicas: int | None = None
    sharing: str | None = None


class GfdLabels(Record):
    """What the labels say, with "not said" as None.

    Attributes:
        discovered: whether GPU Feature Discovery itself ran here; False where gpu.product is all there is.
        product: None where no label names one.
        product_label: the label's own value, to select nodes by.
        compute_capability: "8.9".
        memory_mib: of one GPU, or of one slice under MIG strategy `single`.
        driver: "550.90.07"; two parts where the revision is empty.
        cuda: the newest CUDA version that the driver supports.
        count: GPUs, or slices under MIG strategy `single`.
        replicas: shares of one GPU; wrong under time slicing in some versions, 0 for GPUs in MIG mode without strategy.
        sharing: "mps" or "time-slicing"; None where not shared or not said.
    """

    discovered: bool = False
    product: ProductName | None = None
    product_label: str = ""
    compute_capability: str | None = None
    memory_mib: int | None = None
    multiprocessors: int | None = None
    driver: str | None = None
    cuda: str | None = None
    count: int | None = None
    replicas: int | None = None
    sharing: str | None = None
    mig: tuple[MigLabels, ...] = ()


def read_gfd_labels(labels: Mapping[str, str]) -> GfdLabels:
    """Return what GPU Feature Discovery's labels among `labels` say."""
    own = {key.removeprefix(_PREFIX): value for key, value in labels.items() if key.startswith(_PREFIX)}
    label = own.get("gpu.product", "")
    return GfdLabels(
        discovered=any(key in own for key in _PROOF),
        product=split_product(label) if label else None,
        product_label=label,
        compute_capability=_joined(own, "gpu.compute.major", "gpu.compute.minor"),
        memory_mib=_memory_mib(own.get("gpu.memory")),
        multiprocessors=_number(own.get("gpu.multiprocessors")),
        driver=_driver(own),
        cuda=_joined(own, "cuda.runtime-version.major", "cuda.runtime-version.minor")
        or _joined(own, "cuda.runtime.major", "cuda.runtime.minor"),
        count=_number(own.get("gpu.count")),
        replicas=_number(own.get("gpu.replicas")),
        sharing=_sharing(own.get("gpu.sharing-strategy")),
        mig=_mig(own),
    )


def _driver(own: Mapping[str, str]) -> str | None:
    """Return the driver's version; None: no label has it, or it reads "unknown", as on Jetson."""
    candidates = (
        own.get("cuda.driver-version.full"),
        _joined(own, "cuda.driver-version.major", "cuda.driver-version.minor", "cuda.driver-version.revision"),
        _joined(own, "cuda.driver.major", "cuda.driver.minor", "cuda.driver.rev"),
    )
    return next((one for one in candidates if one and one[0].isdigit()), None)


def _joined(own: Mapping[str, str], *keys: str) -> str | None:
    """Join the parts with dots; the first two must be numbers, an empty third one is left out."""
    parts = [own.get(key, "") for key in keys]
    if not all(part.isdigit() for part in parts[:2]):
        return None
    return ".".join(part for part in parts if part)


def _number(value: str | None) -> int | None:
    return int(value) if value and value.isdigit() else None


def _memory_mib(value: str | None) -> int | None:
    number = _number(value)
    if not number:
        return None
    return number >> 20 if number >= _BYTES_FROM else number


def _sharing(value: str | None) -> str | None:
    return value if value and value != _UNSHARED else None


def _mig(own: Mapping[str, str]) -> tuple[MigLabels, ...]:
    # The profile has dots itself (1g.5gb, 1g.10gb.me), so only known suffixes tell where it ends.
    suffixes = (".count", ".memory", ".multiprocessors", ".replicas", ".product")
    keys = [key.removeprefix("mig-") for key in own if key.startswith("mig-")]
    profiles = {key.removesuffix(suffix) for key in keys for suffix in suffixes if key.endswith(suffix)}
    return tuple(
        MigLabels(
            profile=profile,
            memory_mib=_memory_mib(own.get(f"mig-{profile}.memory")),
            multiprocessors=_number(own.get(f"mig-{profile}.multiprocessors")),
            replicas=_number(own.get(f"mig-{profile}.replicas")),
            sharing=_sharing(own.get(f"mig-{profile}.sharing-strategy")),
        )
        for profile in sorted(profiles)
    )
