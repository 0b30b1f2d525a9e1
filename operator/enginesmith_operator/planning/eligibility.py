"""Whether a node may build engines, and whether it may serve them, with every reason why not.

A build needs a device of its own: timing a tactic on a GPU that another pod uses gives a slow engine, and one built in
a MIG slice is for that slice. Serving supports a shared GPU. Neither supports a product that is not known for certain,
because an engine for another product does not load.
"""

from collections.abc import Callable, Iterator
from typing import Final

from enginesmith_contract.record import Record
from enginesmith_operator.planning.hardware import NodeFacts, Offer, Presence
from enginesmith_operator.planning.refusals import Refusal

__all__ = ["BuildEligibility", "ServeEligibility", "build_eligibility", "check_readiness", "serve_eligibility"]

_GPU: Final = "nvidia.com/gpu"


class ServeEligibility(Record):
    """Devices that a server may be given; `reasons` is empty where there is one."""

    offers: tuple[Offer, ...] = ()
    reasons: tuple[Refusal, ...] = ()

    @property
    def eligible(self) -> bool:
        """Whether a server may run here."""
        return bool(self.offers)


class BuildEligibility(Record):
    """Devices that a build may be given; `reasons` is empty where there is one."""

    offers: tuple[Offer, ...] = ()
    reasons: tuple[Refusal, ...] = ()

    @property
    def eligible(self) -> bool:
        """Whether a build may run here."""
        return bool(self.offers)


def serve_eligibility(facts: NodeFacts) -> ServeEligibility:
    """Return the devices of the node that a server may be given, or every reason why there is none."""
    reasons = _absence(facts) or tuple(reason for check in _CHECKS for reason in check(facts))
    return ServeEligibility(offers=() if reasons else facts.offers, reasons=reasons)


def build_eligibility(facts: NodeFacts) -> BuildEligibility:
    """Return the devices of the node that a build may have to itself, or every reason why there is none."""
    serve = serve_eligibility(facts)
    alone = tuple(offer for offer in serve.offers if not offer.sharing)
    if alone or not serve.offers:
        return BuildEligibility(offers=alone, reasons=serve.reasons)
    evidence = "; ".join(dict.fromkeys(clause for offer in serve.offers for clause in offer.sharing))
    wanted = "a build needs a whole GPU: keep one node of this product unshared"
    return BuildEligibility(
        reasons=(Refusal(rule="SharedGpu", found=f"its GPUs are shared ({evidence})", wanted=wanted),)
    )


def check_readiness(facts: NodeFacts) -> tuple[Refusal, ...]:
    """Return why no pod should go to the node now, whatever it needs."""
    return (*_not_ready(facts), *_cordoned(facts))


def _absence(facts: NodeFacts) -> tuple[Refusal, ...]:
    match facts.presence:
        case Presence.NVIDIA:
            return ()
        case Presence.OTHER_VENDOR:
            return (Refusal(rule="NotNvidia", found=f"its accelerator is {facts.vendor}"),)
        case Presence.NONE:
            if facts.is_local:
                wanted = "if it has one, install its driver; onnxruntime targets need none"
                return (Refusal(rule="NoGpu", found="NVML finds no NVIDIA GPU", wanted=wanted),)
            found = "no label and no resource shows a GPU"
            wanted = "if it has one, install the NVIDIA device plugin and GPU Feature Discovery"
            return (Refusal(rule="NoGpu", found=found, wanted=wanted),)


def _not_ready(facts: NodeFacts) -> Iterator[Refusal]:
    if not facts.is_ready:
        yield Refusal(rule="NodeNotReady", found="its kubelet does not report", wanted="wait until the node is Ready")


def _cordoned(facts: NodeFacts) -> Iterator[Refusal]:
    if facts.is_cordoned:
        yield Refusal(rule="NodeCordoned", found="it is cordoned", wanted="run kubectl uncordon")


def _invalid_mig(facts: NodeFacts) -> Iterator[Refusal]:
    if facts.mig_invalid:
        found = f"its GPUs are partitioned differently under MIG strategy single ({facts.product_from})"
        wanted = "give every GPU one layout, or set mig.strategy to mixed"
        yield Refusal(rule="MigInvalid", found=found, wanted=wanted)
    elif facts.no_mig_strategy:
        found = "its GPUs are in MIG mode and the device plugin has no MIG strategy (gpu.replicas=0)"
        yield Refusal(rule="MigWithoutStrategy", found=found, wanted="set mig.strategy to single or mixed")


def _unsettled_product(facts: NodeFacts) -> Iterator[Refusal]:
    if facts.claims:
        found = f"labels name two products ({' against '.join(facts.claims)}) and GPU Feature Discovery has not run"
        wanted = "wait for GPU Feature Discovery, and remove the label from the node pool: an early label is a guess"
        yield Refusal(rule="ProductUnsettled", found=found, wanted=wanted)


def _unknown_product(facts: NodeFacts) -> Iterator[Refusal]:
    if facts.product is None and not facts.claims:
        discovery = "GPU Feature Discovery" if facts.discovered or facts.driver else ""
        shown = facts.sign or discovery or ", ".join(facts.capacity) or facts.dra
        found = f"no label names the model of its NVIDIA GPU ({shown})"
        wanted = "install GPU Feature Discovery, or describe the pool as a node class"
        yield Refusal(rule="ProductUnknown", found=f"{found}; {facts.hint}" if facts.hint else found, wanted=wanted)


def _nothing_allocatable(facts: NodeFacts) -> Iterator[Refusal]:
    if facts.offers or facts.mig_invalid:
        return
    if facts.dra:
        found = f"its GPUs are handed out by dynamic resource allocation (DRA) alone: {facts.dra}, no {_GPU}"
        wanted = (
            f"Enginesmith does not use DRA yet: let the NVIDIA device plugin hand out this node's GPUs as {_GPU}, "
            "and not the DRA driver"
        )
    elif facts.strangers:
        found = f"it hands out {', '.join(facts.strangers)}, which Enginesmith does not know"
        wanted = "add the resource to the operator's label mapping"
    elif facts.sharing_of_all:
        found = f"{_GPU} is 0: {facts.sharing_of_all[0]}"
        wanted = f"hand out whole GPUs as {_GPU} on a node for builds"
    elif not facts.capacity:
        found = f"kubelet has no resource {_GPU}"
        wanted = (
            "check that driver and device plugin run there; Enginesmith does not yet use GPUs that dynamic resource "
            "allocation (DRA) alone hands out (kubectl get resourceslices): let the device plugin hand them out"
        )
    else:
        name = _GPU if _GPU in facts.capacity else next(iter(facts.capacity))
        found = f"the node has GPU labels, but {name} is 0 of {facts.capacity[name]}"
        wanted = "check the device plugin's pod and the GPU's health"
        if not facts.capacity[name]:
            wanted += "; Enginesmith does not yet use GPUs that DRA alone hands out (kubectl get resourceslices)"
    yield Refusal(rule="NothingAllocatable", found=found, wanted=wanted)


def _count_mismatch(facts: NodeFacts) -> Iterator[Refusal]:
    offer = next((one for one in facts.offers if one.resource == _GPU), None)
    if offer is None or facts.count is None or offer.sharing or offer.allocatable <= facts.count:
        return
    found = (
        f"{offer.allocatable} {_GPU} are handed out, but labels count {facts.count} of {facts.product}: several "
        "models, or sharing that no label shows"
    )
    wanted = "keep one GPU model per node (hide the others from the device plugin), or correct the sharing labels"
    yield Refusal(rule="SeveralModels", found=found, wanted=wanted)


# In the order that a person would look.
_CHECKS: Final[tuple[Callable[[NodeFacts], Iterator[Refusal]], ...]] = (
    _not_ready,
    _cordoned,
    _invalid_mig,
    _unsettled_product,
    _unknown_product,
    _nothing_allocatable,
    _count_mismatch,
)
