"""A cloud's own labels and resource names, read through the label mapping."""

import re
from collections.abc import Mapping

from enginesmith_contract.record import Record
from enginesmith_operator.planning.label_mapping import LabelMapping, Scheme
from enginesmith_operator.planning.node_object import NodeObject, count_of

__all__ = ["CloudLabels", "LabelPin", "has_nvidia_sign", "read_cloud_labels"]

_INSTANCE_TYPE = "node.kubernetes.io/instance-type"


class LabelPin(Record):
    """The label that a pod selects this hardware by.

    Attributes:
        also: further labels of the same node, where one alone is not enough.
    """

    label: str
    value: str
    also: tuple["LabelPin", ...] = ()

    def fits(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels is meant."""
        return labels.get(self.label) == self.value and all(one.fits(labels) for one in self.also)


class CloudLabels(Record):
    """What a platform's labels say.

    Attributes:
        product: in GPU Feature Discovery's spelling.
        product_from: the label with its value and the platform's name.
        mig_profile: where the platform hands out slices as whole GPUs.
        sharing: evidence of sharing, one clause each.
        hint: what the machine type usually has, as a clause; never a reason to match.
    """

    product: str | None = None
    product_from: str = ""
    pin: LabelPin | None = None
    memory_mib: int | None = None
    mig_profile: str | None = None
    sharing: tuple[str, ...] = ()
    hint: str = ""


def read_cloud_labels(node: NodeObject, mapping: LabelMapping) -> CloudLabels:
    """Return what the first scheme whose value is valid says; sharing labels count whichever scheme names the product.

    A node may have another platform's key with a value that means nothing there, so a key alone never ends the search.
    """
    labels = node.metadata.labels
    sharing = _sharing(node, mapping)
    instance = labels.get(_INSTANCE_TYPE, "")
    usual = mapping.instance_product(instance)
    hint = f"machine type {instance} usually has {usual}" if usual else ""
    for scheme in mapping.schemes:
        value = labels.get(scheme.product_label, "")
        if not scheme.reads(value) or not _applies(scheme, node):
            continue
        memory = _memory_mib(scheme, node)
        product = scheme.product(value, memory)
        if product:
            return CloudLabels(
                product=product,
                product_from=f"{scheme.product_label}={value} ({scheme.title})",
                pin=LabelPin(label=scheme.product_label, value=value),
                memory_mib=memory,
                mig_profile=labels.get(scheme.mig_label) if scheme.mig_label else None,
                sharing=sharing,
            )
        hint = _open_value(scheme, value)
    return _named_by_resource(node, mapping, sharing) or CloudLabels(sharing=sharing, hint=hint)


def has_nvidia_sign(node: NodeObject, mapping: LabelMapping) -> str:
    """Return the label, annotation or resource that says "an NVIDIA GPU" and no more; empty where there is none."""
    labels = node.metadata.labels
    for one in mapping.vendor_only:
        value = labels.get(one.label)
        if value is not None and one.fits(value):
            return f"{one.label}={value}"
    if mapping.hami_annotation in node.metadata.annotations:
        return mapping.hami_annotation
    shares = next((name for name in sorted(node.status.capacity) if mapping.sharing_family(name)), "")
    if shares:
        return shares
    pci = re.compile(mapping.nvidia_pci_key)
    return next((key for key in sorted(labels) if pci.match(key) and labels[key] == "true"), "")


def _open_value(scheme: Scheme, value: str) -> str:
    several = scheme.open_products(value)
    said = f"{scheme.product_label}={value}"
    if several:
        return f"{said} ({scheme.title}) leaves open which: {', '.join(several)}"
    return f"{said} names no product that {scheme.title}'s mapping knows"


def _named_by_resource(node: NodeObject, mapping: LabelMapping, sharing: tuple[str, ...]) -> CloudLabels | None:
    """Return what a resource's name says of the model; None where no resource names one, or several do."""
    named = [
        one
        for one in mapping.resources
        if one.product is not None and count_of(node.status.capacity.get(one.name, "0")) > 0
    ]
    if len({one.product for one in named}) != 1:
        return None
    first = named[0]
    title = f" ({first.title})" if first.title else ""
    return CloudLabels(product=first.product, product_from=f"the resource {first.name}{title}", sharing=sharing)


def _applies(scheme: Scheme, node: NodeObject) -> bool:
    wanted = scheme.requires
    return wanted is None or node.metadata.labels.get(wanted.label, "").casefold() == wanted.value.casefold()


def _memory_mib(scheme: Scheme, node: NodeObject) -> int | None:
    value = node.metadata.labels.get(scheme.memory.label) if scheme.memory else None
    return scheme.memory.mib(value) if scheme.memory and value else None


def _sharing(node: NodeObject, mapping: LabelMapping) -> tuple[str, ...]:
    labels = node.metadata.labels
    every = [one for scheme in mapping.schemes for one in scheme.sharing] + list(mapping.sharing)
    found = [f"{one.label}={labels[one.label]}" for one in every if one.label in labels and one.fits(labels[one.label])]
    if mapping.hami_annotation in node.metadata.annotations:
        found.append(f"HAMi hands out its GPUs (annotation {mapping.hami_annotation})")
    return (*found, *_shares(node, mapping))


def _shares(node: NodeObject, mapping: LabelMapping) -> tuple[str, ...]:
    handed_out = [name for name in sorted(node.status.allocatable) if count_of(node.status.allocatable[name]) > 0]
    families = [(name, mapping.sharing_family(name)) for name in handed_out]
    return tuple(f"it hands out {name} ({family.title})" for name, family in families if family is not None)
