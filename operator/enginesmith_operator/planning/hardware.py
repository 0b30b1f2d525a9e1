"""From a node's labels and resources to what hardware it offers, without a guess.

    NodeObject ── read_gfd_labels ─┐
              └── LabelMapping ────┴─> NodeFacts ── offers ──> Offer (one kind of device that a pod can be given)

Labels prove little: they may be there without a usable GPU, and a GPU may be there before its labels. So facts keep
"unknown" apart from "no GPU", and an offer needs a resource that kubelet hands out. Whether an offer may build or serve
is decided in `eligibility`.
"""

from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase

from enginesmith_contract.backends import Hardware
from enginesmith_contract.products import MIG_INVALID, canonical_mig_profile, canonical_product
from enginesmith_contract.record import Record
from enginesmith_operator.planning.cloud_labels import CloudLabels, LabelPin, has_nvidia_sign, read_cloud_labels
from enginesmith_operator.planning.gfd import GfdLabels, read_gfd_labels
from enginesmith_operator.planning.label_mapping import LabelMapping
from enginesmith_operator.planning.node_object import NodeObject, Taint, memory_mib_of
from enginesmith_operator.planning.offers import Offer, nvidia_resources, read_offers, unknown_resources

__all__ = ["GFD_PRODUCT_LABEL", "LabelPin", "NodeFacts", "Offer", "Presence", "read_node"]

GFD_PRODUCT_LABEL = "nvidia.com/gpu.product"


class Presence(StrEnum):
    """Whether a node has an NVIDIA GPU; `NONE` is no sign of one, which a node that is seconds old may show too."""

    NVIDIA = "nvidia"
    OTHER_VENDOR = "other-vendor"
    NONE = "none"


class NodeFacts(Record):
    """What is known of one node.

    Attributes:
        is_local: this machine, as NVML describes it, and no node of a cluster.
        product: canonical; None where no label names it.
        product_from: the label, with its value, that names it; or the platform.
        pin: None where no label names the product.
        claims: products that labels name and that contradict each other; empty: none do.
        discovered: whether GPU Feature Discovery ran here.
        count: GPUs by label; of slices under MIG strategy `single`.
        sharing_of_all: evidence of sharing that holds for every device of the node.
        mig_invalid: GPUs are partitioned differently under MIG strategy `single`.
        no_mig_strategy: GPUs are in MIG mode and the device plugin has no MIG strategy.
        capacity: NVIDIA resources with what the node has, whether handed out or not.
        strangers: resources that hand out NVIDIA GPUs by their name, and that the label mapping does not know.
        dra: evidence that dynamic resource allocation hands out the node's GPUs, as a clause; empty: none.
        host_memory_mib: memory of the machine, which is a GPU's too where both share it.
        vendor: the other vendor and how it shows.
        sign: the label that says "an NVIDIA GPU" and no more.
        hint: what the machine type usually has; for sentences only.
    """

    name: str
    is_local: bool = False
    presence: Presence
    arch: str = ""
    os: str = "linux"
    is_ready: bool = True
    is_cordoned: bool = False
    taints: tuple[Taint, ...] = ()
    labels: Mapping[str, str] = {}
    product: str | None = None
    product_from: str = ""
    pin: LabelPin | None = None
    claims: tuple[str, ...] = ()
    discovered: bool = False
    compute_capability: str | None = None
    memory_mib: int | None = None
    driver: str | None = None
    cuda: str | None = None
    count: int | None = None
    replicas: int | None = None
    sharing_of_all: tuple[str, ...] = ()
    mig_invalid: bool = False
    no_mig_strategy: bool = False
    offers: tuple[Offer, ...] = ()
    capacity: Mapping[str, int] = {}
    strangers: tuple[str, ...] = ()
    dra: str = ""
    host_memory_mib: int | None = None
    vendor: str = ""
    sign: str = ""
    hint: str = ""

    @property
    def unknown(self) -> tuple[str, ...]:
        """What a plan for this node has to leave to the pod that finds itself on it."""
        found = {"driver": self.driver, "compute capability": self.compute_capability, "memory": self.memory_mib}
        return tuple(name for name, value in found.items() if value is None)

    def hardware(self, offer: Offer) -> Hardware:
        """Return one device of `offer` as keys and checks name it."""
        return Hardware(
            product=self.product,
            mig_profile=canonical_mig_profile(offer.mig_profile),
            compute_capability=self.compute_capability,
            memory_mib=offer.memory_mib,
            multiprocessors=offer.multiprocessors,
            driver=self.driver,
            arch=self.arch or "amd64",
            os=self.os,
        )


def read_node(node: NodeObject, mapping: LabelMapping) -> NodeFacts:
    """Return what `node` says of itself, in GPU Feature Discovery's terms or through a cloud's labels."""
    labels = node.metadata.labels
    gfd = read_gfd_labels(labels)
    cloud = read_cloud_labels(node, mapping)
    capacity = nvidia_resources(node, mapping)
    dra = _dra(node, mapping)
    offers = read_offers(node, gfd, cloud, mapping)
    is_sliced = bool(gfd.product and gfd.product.mig_profile) or any(offer.mig_profile for offer in offers)
    claims = _contradiction(gfd, cloud)
    product = None if claims else _product(gfd, cloud)
    vendor = _other_vendor(node, mapping)
    sign = has_nvidia_sign(node, mapping)
    has_nvidia = bool(gfd.product or gfd.discovered or gfd.driver or cloud.product or capacity or sign or dra)
    return NodeFacts(
        name=node.metadata.name,
        presence=Presence.NVIDIA if has_nvidia else Presence.OTHER_VENDOR if vendor else Presence.NONE,
        arch=labels.get("kubernetes.io/arch") or node.status.node_info.architecture,
        os=labels.get("kubernetes.io/os") or node.status.node_info.operating_system or "linux",
        is_ready=node.is_ready,
        is_cordoned=node.spec.unschedulable,
        taints=node.spec.taints,
        labels=labels,
        product=product,
        product_from="" if product is None else _product_from(gfd, cloud),
        pin=None if product is None else _pin(gfd, cloud),
        claims=claims,
        discovered=gfd.discovered,
        compute_capability=gfd.compute_capability,
        memory_mib=gfd.memory_mib or cloud.memory_mib,
        driver=gfd.driver,
        cuda=gfd.cuda,
        count=gfd.count,
        replicas=gfd.replicas,
        sharing_of_all=cloud.sharing,
        mig_invalid=gfd.product is not None and gfd.product.mig_profile == MIG_INVALID,
        # Under strategy mixed a node whose GPUs are all in MIG mode has no whole one to share either.
        no_mig_strategy=gfd.replicas == 0 and not gfd.mig and not is_sliced,
        offers=offers,
        capacity=capacity,
        strangers=unknown_resources(node, mapping),
        dra=dra,
        host_memory_mib=memory_mib_of(node.status.capacity.get("memory", "")),
        vendor=vendor,
        sign=sign,
        hint=cloud.hint if has_nvidia and product is None else "",
    )


def _product(gfd: GfdLabels, cloud: CloudLabels) -> str | None:
    return gfd.product.product if gfd.product else cloud.product


def _product_from(gfd: GfdLabels, cloud: CloudLabels) -> str:
    return f"{GFD_PRODUCT_LABEL}={gfd.product_label}" if gfd.product else cloud.product_from


def _pin(gfd: GfdLabels, cloud: CloudLabels) -> LabelPin | None:
    return LabelPin(label=GFD_PRODUCT_LABEL, value=gfd.product_label) if gfd.product else cloud.pin


def _contradiction(gfd: GfdLabels, cloud: CloudLabels) -> tuple[str, ...]:
    """A gpu.product that a node pool declared before discovery ran, against what the machine type has."""
    if gfd.product is None or gfd.discovered or cloud.product is None:
        return ()
    if gfd.product.product == canonical_product(cloud.product):
        return ()
    return (f"{GFD_PRODUCT_LABEL}={gfd.product_label}", cloud.product_from)


def _dra(node: NodeObject, mapping: LabelMapping) -> str:
    """Return the clause; NVIDIA's guide labels the nodes where the driver's kubelet plugin is to run."""
    devices = [one for one in node.dra_devices if one.driver == mapping.dra_driver]
    if devices:
        return f"ResourceSlices of {mapping.dra_driver} list {len(devices)} of its devices"
    value = node.metadata.labels.get(mapping.dra_label.label)
    # The label alone may be for ComputeDomains, which leave the GPUs to the device plugin.
    has_plugin = any(nvidia_resources(node, mapping).values())
    is_labelled = value is not None and mapping.dra_label.fits(value) and not has_plugin
    return f"{mapping.dra_label.label}={value}" if is_labelled else ""


def _other_vendor(node: NodeObject, mapping: LabelMapping) -> str:
    for vendor in mapping.other_vendors:
        for name, patterns in ((node.status.capacity, vendor.resources), (node.metadata.labels, vendor.labels)):
            found = next((key for key in sorted(name) for one in patterns if fnmatchcase(key, one)), None)
            if found:
                return f"{vendor.title} ({found})"
    return ""
