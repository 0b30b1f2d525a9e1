"""Cloud label schemes as typed data: what a node's labels mean where GPU Feature Discovery does not run.

The data is `data/clouds.yaml`; an administrator's additions come in the same form. Nothing here reads a node.
"""

import pkgutil
import re
from fnmatch import fnmatchcase
from functools import cache
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import Field, model_validator

from enginesmith_contract.record import Record

__all__ = [
    "InstanceType",
    "LabelMapping",
    "LabelValues",
    "MappedProduct",
    "MemoryLabel",
    "OtherVendor",
    "RequiredLabel",
    "Resource",
    "Scheme",
    "SeveralProducts",
    "SharingResources",
    "load_label_mapping",
]

_MEMORY_NUMBER: Final = re.compile(r"(\d+)\s*(?:MiB)?")
# A marketing gigabyte is the driver's MiB figure divided by a thousand: 143 for 143,771 MiB.
_UNIT_MIB: Final = {"MiB": 1, "GB": 1000}
_GFD_SPELLING: Final = re.compile(r"(NVIDIA|Tesla|Quadro|GRID)-[A-Za-z0-9\-_.]+")


class MappedProduct(Record):
    """What one value of a scheme's product label means.

    Attributes:
        value: compared without case.
        memory_mib: the memory label's value that selects this product where one value names several.
        product: in GPU Feature Discovery's spelling.
    """

    value: str
    memory_mib: int | None = None
    product: str
    evidence: Literal["seen", "doc", "inferred"]


class SeveralProducts(Record):
    """A value that is known and names more than one product; for sentences only."""

    value: str
    products: tuple[str, ...]


class LabelValues(Record):
    """A label and the values that mean something; shell patterns, compared without case, `_` as `-`."""

    label: str
    values: tuple[str, ...]
    title: str = ""

    def fits(self, value: str) -> bool:
        """Whether `value` is one of them."""
        plain = value.casefold().replace("_", "-")
        return any(fnmatchcase(plain, one.casefold().replace("_", "-")) for one in self.values)


class MemoryLabel(Record):
    """Where a platform writes the memory of one GPU."""

    label: str
    unit: Literal["MiB", "GB"]

    def mib(self, value: str) -> int | None:
        """Return the memory in MiB; None where the value is no number."""
        number = _MEMORY_NUMBER.fullmatch(value.strip())
        return int(number[1]) * _UNIT_MIB[self.unit] if number else None


class RequiredLabel(Record):
    """A label that must be there for the scheme to apply."""

    label: str
    value: str


class Scheme(Record):
    """One platform's labels.

    Attributes:
        title: for sentences.
        value_pattern: shell pattern of the values that this scheme reads; others belong to another platform.
        gfd_spelling: the product label's value is GPU Feature Discovery's spelling under another key.
        sharing: labels that say that GPUs are shared.
        mig_label: its value is the MIG profile of every slice; slices are handed out as whole GPUs.
        cannot_know: what these labels never tell.
        several: values that leave the product open, such as a model without its form factor.
    """

    name: str
    title: str
    product_label: str
    value_pattern: str = "*"
    gfd_spelling: bool = False
    requires: RequiredLabel | None = None
    memory: MemoryLabel | None = None
    sharing: tuple[LabelValues, ...] = ()
    mig_label: str | None = None
    cannot_know: tuple[str, ...]
    source: str
    products: tuple[MappedProduct, ...] = ()
    several: tuple[SeveralProducts, ...] = ()

    def reads(self, value: str) -> bool:
        """Whether a value of the product label is one of this platform's."""
        return bool(value) and fnmatchcase(value.casefold(), self.value_pattern.casefold())

    def product(self, value: str, memory_mib: int | None) -> str | None:
        """Return the product that a value names; None where it names none, or one of several."""
        if self.gfd_spelling:
            return value if _GFD_SPELLING.fullmatch(value) else None
        same = [one for one in self.products if one.value.casefold() == value.casefold()]
        return next((one.product for one in same if one.memory_mib in {None, memory_mib}), None)

    def open_products(self, value: str) -> tuple[str, ...]:
        """Return the products of which a value names one; empty where the value is not known."""
        return next((one.products for one in self.several if one.value.casefold() == value.casefold()), ())


class Resource(Record):
    """An extended resource that hands out NVIDIA GPUs.

    Attributes:
        shared: pods get shares of a GPU; such a resource serves and never builds.
        product: the model, in GPU Feature Discovery's spelling, where the resource's name says it.
        units_per_gpu: how many of the resource make one whole GPU.
        title: of the platform, for sentences.
    """

    name: str
    shared: bool
    product: str | None = None
    units_per_gpu: Annotated[int, Field(ge=1)] = 1
    title: str = ""

    @model_validator(mode="after")
    def _take_one_unit_to_build(self) -> Self:
        if self.units_per_gpu > 1 and not self.shared:
            raise ValueError("a build takes one unit of a resource: set shared to true, or unitsPerGpu to 1")
        return self


class SharingResources(Record):
    """A platform's resources that hand out shares of NVIDIA GPUs (shell patterns).

    Attributes:
        title: for sentences.
        resources: a pod gets a GPU by asking for one of these; others only say how large a share is.
    """

    title: str
    resources: tuple[str, ...]


class InstanceType(Record):
    """A machine type (shell pattern) and what it usually has; for sentences only."""

    type: str
    product: str


class OtherVendor(Record):
    """How another vendor's accelerators show (shell patterns)."""

    title: str
    resources: tuple[str, ...]
    labels: tuple[str, ...]


class LabelMapping(Record):
    """All that is known of nodes without GPU Feature Discovery.

    Attributes:
        dra_driver: name of NVIDIA's driver for dynamic resource allocation, as ResourceSlices have it.
        dra_label: the label of nodes where that driver's kubelet plugin runs.
    """

    schemes: tuple[Scheme, ...] = ()
    sharing: tuple[LabelValues, ...] = ()
    vendor_only: tuple[LabelValues, ...] = ()
    nvidia_pci_key: str
    hami_annotation: str
    resources: tuple[Resource, ...]
    sharing_resources: tuple[SharingResources, ...] = ()
    dra_driver: str
    dra_label: LabelValues
    instance_types: tuple[InstanceType, ...] = ()
    other_vendors: tuple[OtherVendor, ...] = ()

    def resource(self, name: str) -> Resource | None:
        """Return the resource of a name, None where the mapping does not know it."""
        return next((one for one in self.resources if one.name == name), None)

    def sharing_family(self, name: str) -> SharingResources | None:
        """Return the platform whose shares a resource hands out, None where it is no such resource."""
        found = (one for one in self.sharing_resources if any(fnmatchcase(name, text) for text in one.resources))
        return next(found, None)

    def instance_product(self, instance_type: str) -> str | None:
        """Return what a machine type usually has; never a reason to match a node."""
        return next((one.product for one in self.instance_types if fnmatchcase(instance_type, one.type)), None)


@cache
def load_label_mapping() -> LabelMapping:
    """Return the mapping that ships with the product."""
    data = pkgutil.get_data(__package__, "data/clouds.yaml")
    return LabelMapping.model_validate(yaml.safe_load(data or b""))
