"""Which nodes a target means, and why the others do not fit.

A candidate is one kind of device on one node (or node class). Candidates of one product and MIG profile form a group,
and a group gets one engine.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from enginesmith_contract.backends import Hardware
from enginesmith_contract.matrix.model import Matrix
from enginesmith_contract.matrix.query import capability_of
from enginesmith_contract.products import canonical_mig_profile, canonical_product
from enginesmith_contract.record import Record
from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.api.targets import GpuSpec, TargetSpec, needs_gpu
from enginesmith_operator.planning.eligibility import build_eligibility, check_readiness, serve_eligibility
from enginesmith_operator.planning.hardware import LabelPin, NodeFacts, Offer, Presence
from enginesmith_operator.planning.memory import known_memory
from enginesmith_operator.planning.refusals import NodeRefusal, Refusal, natural_order
from enginesmith_operator.planning.snapshot import Observed
from enginesmith_operator.planning.tolerations import ARCH_TOLERATION, GPU_TOLERATION, untolerated

__all__ = ["Candidate", "Matches", "group_candidates", "keep_one_resource", "match_nodes"]

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30


class Candidate(Record):
    """One kind of device on one node.

    Attributes:
        hardware: as checks and keys name it; product None for a CPU.
        resource: what a pod asks for; `units` of it are one device.
        pin: the label that selects the node; None where the resource's name says the model.
        can_build: whether a build may have such a device to itself.
        from_class: the node is a node class's.
    """

    node: str
    hardware: Hardware
    resource: str | None = None
    units: int = 1
    pin: LabelPin | None = None
    can_build: bool
    build_refusals: tuple[Refusal, ...] = ()
    from_class: bool = False


class Matches(NamedTuple):
    """Candidates in natural order of their nodes' names, and every node that is none with its reasons."""

    candidates: tuple[Candidate, ...]
    refusals: tuple[NodeRefusal, ...]


def match_nodes(target: TargetSpec, spec: InferenceEngineSpec, observed: Observed) -> Matches:
    """Return the nodes and node classes that `target` means.

    A node of other hardware has one reason, since nothing makes it fit; any other has all of them.
    """
    pools = [pool.as_node() for pool in observed.node_classes]
    classes = {pool.name for pool in pools}
    candidates: list[Candidate] = []
    refusals: list[NodeRefusal] = []
    for facts in sorted((*observed.nodes, *pools), key=lambda node: natural_order(node.name)):
        found = _look_at(facts, target, spec, observed.matrix)
        if isinstance(found[0], Candidate):
            from_class = {"from_class": facts.name in classes}
            candidates += [one.model_copy(update=from_class) for one in found if isinstance(one, Candidate)]
        else:
            refusals += [NodeRefusal(node=facts.name, refusal=one) for one in found if isinstance(one, Refusal)]
    return Matches(tuple(candidates), tuple(refusals))


def keep_one_resource(matches: Matches) -> Matches:
    """Leave out nodes that hand out another resource: the pods of one Deployment ask for one.

    A resource with which an engine can be built goes first, then the one that most nodes have.
    """
    candidates = matches.candidates
    resources = {one.resource for one in candidates}
    if len(resources) <= 1:
        return matches
    kept = min(
        resources,
        key=lambda name: (
            not any(one.can_build for one in candidates if one.resource == name),
            -sum(one.resource == name for one in candidates),
            name or "",
        ),
    )
    wanted = "use another InferenceEngine for such nodes, which selects them with podTemplate.nodeSelector"
    left_out = tuple(
        NodeRefusal(
            node=one.node,
            refusal=Refusal(
                rule="ResourceDiffers",
                found=f"it hands out {one.resource}, the target's pods ask for {kept}",
                wanted=wanted,
            ),
        )
        for one in candidates
        if one.resource != kept
    )
    return Matches(tuple(one for one in candidates if one.resource == kept), (*matches.refusals, *left_out))


def group_candidates(candidates: tuple[Candidate, ...]) -> tuple[tuple[Candidate, ...], ...]:
    """Group candidates that one engine serves: by product, MIG profile and platform, in that order."""
    groups: dict[tuple[str, str, str, str], list[Candidate]] = {}
    for one in candidates:
        hardware = one.hardware
        groups.setdefault((hardware.product or "", hardware.mig_profile or "", hardware.arch, hardware.os), []).append(
            one
        )
    return tuple(tuple(groups[key]) for key in sorted(groups))


def _look_at(
    facts: NodeFacts, target: TargetSpec, spec: InferenceEngineSpec, matrix: Matrix
) -> tuple[Candidate, ...] | tuple[Refusal, ...]:
    reachable = tuple(_unreachable(facts, target, spec))
    if not needs_gpu(target):
        reasons = (*check_readiness(facts), *reachable)
        return reasons or (Candidate(node=facts.name, hardware=_host(facts), can_build=True),)
    gpu = target.gpu or GpuSpec()
    other = tuple(_other_hardware(facts, gpu, matrix))[:1]
    if other:
        return other
    serve = serve_eligibility(facts)
    if not serve.eligible:
        return (*serve.reasons, *(() if facts.presence is not Presence.NVIDIA else reachable))
    wanted = canonical_mig_profile(gpu.mig_profile)
    fitting = [offer for offer in serve.offers if canonical_mig_profile(offer.mig_profile) == wanted]
    if not fitting:
        return (_other_partition(serve.offers),)
    lacking = {offer: tuple(_lacks(facts, offer, gpu, matrix)) for offer in fitting}
    enough = [offer for offer in fitting if not lacking[offer]]
    if reachable or not enough:
        return (*reachable, *dict.fromkeys(reason for offer in fitting for reason in lacking[offer]))
    return tuple(_candidate(facts, offer, matrix) for offer in enough)


def _candidate(facts: NodeFacts, offer: Offer, matrix: Matrix) -> Candidate:
    device = facts.hardware(offer)
    device = device.model_copy(update={"compute_capability": capability_of(matrix, device)})
    build = build_eligibility(facts)
    return Candidate(
        node=facts.name,
        hardware=device,
        resource=offer.resource,
        units=offer.units_per_device,
        pin=None if offer.product is not None and offer.product == facts.product else facts.pin,
        can_build=offer in build.offers,
        build_refusals=build.reasons,
    )


def _host(facts: NodeFacts) -> Hardware:
    return Hardware(arch=facts.arch or "amd64", os=facts.os)


def _unreachable(facts: NodeFacts, target: TargetSpec, spec: InferenceEngineSpec) -> Iterator[Refusal]:
    template = spec.pod_template
    for label, value in sorted(template.node_selector.items()):
        if facts.labels.get(label) != value:
            found = (
                f"its label {label} is {facts.labels.get(label, 'absent')}, podTemplate.nodeSelector requires {value}"
            )
            yield Refusal(rule="NodeSelector", found=found)
    default = (ARCH_TOLERATION, GPU_TOLERATION) if needs_gpu(target) else (ARCH_TOLERATION,)
    for taint in untolerated(facts.taints, (*template.tolerations, *default)):
        found = f"it has the taint {taint.text()}"
        yield Refusal(rule="Taint", found=found, wanted="tolerate it in podTemplate.tolerations")


def _other_hardware(facts: NodeFacts, gpu: GpuSpec, matrix: Matrix) -> Iterator[Refusal]:
    if facts.product is None:
        return
    if gpu.product is not None and facts.product != canonical_product(gpu.product):
        wanted = f"{canonical_product(gpu.product)} is asked for"
        yield Refusal(rule="ProductDiffers", found=f"its GPU is {facts.product}", wanted=wanted)
    device = Hardware(product=facts.product, compute_capability=facts.compute_capability)
    capability = capability_of(matrix, device)
    if gpu.compute_capability is not None and capability != gpu.compute_capability:
        found = f"compute capability is {capability or f'unknown ({facts.product})'}"
        yield Refusal(rule="ComputeCapability", found=found, wanted=f"{gpu.compute_capability} is asked for")


def _other_partition(offers: tuple[Offer, ...]) -> Refusal:
    slices = [offer.mig_profile for offer in offers if offer.mig_profile]
    if not slices:
        return Refusal(
            rule="MigProfile", found="it has whole GPUs", wanted="the target asks for a slice (gpu.migProfile)"
        )
    found = f"it has MIG slices {', '.join(slices)}"
    return Refusal(rule="MigProfile", found=found, wanted=f"gpu.migProfile: {slices[0]} would match")


def _lacks(facts: NodeFacts, offer: Offer, gpu: GpuSpec, matrix: Matrix) -> Iterator[Refusal]:
    known = known_memory(facts, offer, matrix)
    if gpu.min_memory_bytes is not None and (known.mib or 0) * _MIB < gpu.min_memory_bytes:
        near = (known.mib or 0) * _MIB // _GIB
        remedy = f"{near}Gi would match" if near else known.remedy
        wanted = f"minMemory is {gpu.min_memory_bytes // _MIB} MiB" + (f"; {remedy}" if remedy else "")
        yield Refusal(rule="Memory", found=f"memory is {known.said}", wanted=wanted)
    if offer.allocatable < gpu.count:
        devices = f" ({offer.units_per_device} of it are one GPU)" if offer.units_per_device > 1 else ""
        found = f"it has {offer.allocatable * offer.units_per_device} {offer.resource}{devices}"
        yield Refusal(rule="GpuCount", found=found, wanted=f"gpu.count asks for {gpu.count}")
