"""What a node's kubelet hands out: one offer for each resource through which a pod gets a GPU or a slice.

Where a platform hands out shares under a name of its own (cGPU, qGPU), its scheduler looks at that name alone, so
`nvidia.com/gpu` on such a node is no offer.
"""

from enginesmith_contract.products import canonical_mig_profile
from enginesmith_contract.record import Record
from enginesmith_operator.planning.cloud_labels import CloudLabels
from enginesmith_operator.planning.gfd import GfdLabels, MigLabels
from enginesmith_operator.planning.label_mapping import LabelMapping, Resource
from enginesmith_operator.planning.node_object import NodeObject, count_of

__all__ = ["Offer", "nvidia_resources", "read_offers", "unknown_resources"]

_MIG_RESOURCE = "nvidia.com/mig-"


class Offer(Record):
    """One kind of device that a pod on the node can be given.

    Attributes:
        mig_profile: None for a whole GPU.
        resource: what a pod asks for.
        allocatable: how many devices kubelet hands out, used or not.
        units_per_device: how many of the resource a pod asks for to get one device.
        product: where the resource's name says the model, so that no label has to select the node.
        sharing: evidence that one device is given to several pods, one clause each; empty: it is not.
    """

    mig_profile: str | None = None
    resource: str
    allocatable: int
    units_per_device: int = 1
    product: str | None = None
    memory_mib: int | None = None
    multiprocessors: int | None = None
    sharing: tuple[str, ...] = ()


def read_offers(node: NodeObject, gfd: GfdLabels, cloud: CloudLabels, mapping: LabelMapping) -> tuple[Offer, ...]:
    """Return what the node's kubelet hands out; a resource with nothing allocatable is no offer."""
    allocatable = {name: count_of(text) for name, text in node.status.allocatable.items()}
    whole = [
        _resource_offer(resource, allocatable[resource.name], gfd, cloud)
        for resource in mapping.resources
        if allocatable.get(resource.name, 0) >= resource.units_per_gpu
    ]
    own = [offer for offer in whole if mapping.sharing_family(offer.resource)]
    slices = {canonical_mig_profile(one.profile): one for one in gfd.mig}
    parts = []
    for name in sorted(allocatable):
        if name.startswith(_MIG_RESOURCE) and allocatable[name]:
            profile = name.removeprefix(_MIG_RESOURCE)
            labels = slices.get(canonical_mig_profile(profile)) or MigLabels(profile=profile)
            parts.append(_slice_offer(name, allocatable[name], labels, cloud))
    return (*(own or whole), *parts)


def nvidia_resources(node: NodeObject, mapping: LabelMapping) -> dict[str, int]:
    """Return what the node has of each resource that hands out NVIDIA GPUs, whether handed out or not."""
    known = {resource.name for resource in mapping.resources}
    return {
        name: count_of(text)
        for name, text in sorted(node.status.capacity.items())
        if name in known or name.startswith(_MIG_RESOURCE)
    }


def unknown_resources(node: NodeObject, mapping: LabelMapping) -> tuple[str, ...]:
    """Return resources that hand out NVIDIA GPUs by their name, and that the mapping does not know."""
    known = nvidia_resources(node, mapping)
    return tuple(
        name
        for name in sorted(node.status.capacity)
        if name not in known and (name.startswith("nvidia.com/") or mapping.sharing_family(name))
    )


def _resource_offer(resource: Resource, allocatable: int, gfd: GfdLabels, cloud: CloudLabels) -> Offer:
    sharing = list(cloud.sharing)
    if gfd.sharing:
        sharing.append(f"gpu.sharing-strategy={gfd.sharing}")
    if gfd.replicas is not None and gfd.replicas > 1:
        sharing.append(f"gpu.replicas={gfd.replicas}")
    if gfd.product and gfd.product.shared:
        sharing.append(f"gpu.product={gfd.product_label}")
    if resource.shared:
        sharing.append(f"the resource is {resource.name}")
    return Offer(
        mig_profile=gfd.product.mig_profile if gfd.product else cloud.mig_profile,
        resource=resource.name,
        allocatable=allocatable // resource.units_per_gpu,
        units_per_device=resource.units_per_gpu,
        product=resource.product,
        memory_mib=gfd.memory_mib or cloud.memory_mib,
        multiprocessors=gfd.multiprocessors,
        sharing=tuple(sharing),
    )


def _slice_offer(resource: str, allocatable: int, labels: MigLabels, cloud: CloudLabels) -> Offer:
    sharing = list(cloud.sharing)
    if labels.sharing:
        sharing.append(f"mig-{labels.profile}.sharing-strategy={labels.sharing}")
    if labels.replicas is not None and labels.replicas > 1:
        sharing.append(f"mig-{labels.profile}.replicas={labels.replicas}")
    return Offer(
        mig_profile=labels.profile,
        resource=resource,
        allocatable=allocatable,
        memory_mib=labels.memory_mib,
        multiprocessors=labels.multiprocessors,
        sharing=tuple(sharing),
    )
