"""How much memory a device has: from the node where it says, else from the data sheet, less a margin.

A driver reports less than the data sheet: 15,109 MiB of a T4's 16 GB, 23,034 MiB of an L4's 24 GB. The margin is larger
than every difference that was seen, so that a device is never taken for a larger one.
"""

import re
from typing import Final

from enginesmith_contract.backends import Hardware
from enginesmith_contract.matrix.model import Matrix
from enginesmith_contract.matrix.query import find_product, has_unified_memory
from enginesmith_contract.record import Record
from enginesmith_operator.planning.hardware import NodeFacts
from enginesmith_operator.planning.offers import Offer

__all__ = ["KnownMemory", "known_memory"]

_MARGIN_PERCENT: Final = 8
_GIB_IN_MIB: Final = 1024
_SLICE_GB: Final = re.compile(r"\d+g\.(\d+)gb")
_NO_LABEL: Final = "no label gives it (GPU Feature Discovery writes nvidia.com/gpu.memory)"


class KnownMemory(Record):
    """Memory of one device.

    Attributes:
        mib: None where nothing tells it.
        said: the amount with where it comes from, or why it is not known, as a clause.
        remedy: what to do where it is not known.
    """

    mib: int | None
    said: str
    remedy: str = ""


def known_memory(facts: NodeFacts, offer: Offer, matrix: Matrix) -> KnownMemory:
    """Return the memory of one device of `offer`."""
    if offer.memory_mib:
        return KnownMemory(mib=offer.memory_mib, said=f"{offer.memory_mib} MiB")
    if offer.mig_profile is not None:
        return _slice_memory(offer.mig_profile)
    device = Hardware(product=facts.product, compute_capability=facts.compute_capability)
    row = find_product(matrix, facts.product)
    nominal = row.nominal_memory_gb if row is not None else None
    if has_unified_memory(matrix, device):
        return _unified_memory(facts, nominal)
    if nominal is not None:
        return _less_margin(nominal, f"data sheet of {facts.product}: {nominal} GB")
    said = f"unknown: {_NO_LABEL}, and the version matrix has no size for {facts.product}"
    return KnownMemory(mib=None, said=said, remedy="install GPU Feature Discovery, or remove minMemory")


def _slice_memory(profile: str) -> KnownMemory:
    size = _SLICE_GB.search(profile)
    if size is not None:
        return _less_margin(int(size[1]), f"MIG profile {profile}")
    return KnownMemory(
        mib=None, said=f"unknown: {_NO_LABEL}", remedy="remove minMemory: migProfile already gives the size"
    )


def _unified_memory(facts: NodeFacts, nominal_gb: int | None) -> KnownMemory:
    """Return what CPU and GPU share; how much of it a GPU gets depends on what else runs there."""
    shared = f"the machine's own, which CPU and GPU of {facts.product} share"
    if facts.host_memory_mib is not None:
        return KnownMemory(mib=facts.host_memory_mib, said=f"{facts.host_memory_mib} MiB, {shared}")
    if nominal_gb is not None:
        return _less_margin(nominal_gb, f"data sheet: {nominal_gb} GB; {shared}")
    said = f"unknown: it is {shared}, and the node does not report its size"
    remedy = "remove minMemory, and select nodes with podTemplate.nodeSelector"
    return KnownMemory(mib=None, said=said, remedy=remedy)


def _less_margin(nominal_gb: int, source: str) -> KnownMemory:
    mib = nominal_gb * _GIB_IN_MIB * (100 - _MARGIN_PERCENT) // 100
    return KnownMemory(mib=mib, said=f"about {mib} MiB ({source}, less {_MARGIN_PERCENT} %)")
