"""Chooses the engine of a target for the GPU of this pod.

The device itself decides, because labels can be wrong, outdated or missing. Only engines of ONNX Runtime, which do not
use the GPU that is reserved for them, may rely on the node's label if no device is visible.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.backends import Hardware
from enginesmith_contract.errors import EngineRefusedError
from enginesmith_contract.products import canonical_mig_profile, canonical_product
from enginesmith_contract.pull_request import PullableEngine, PullRequest
from enginesmith_runtime.engines.refusal import refuse_mislabelled

__all__ = ["Place", "choose_engine", "needs_device"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Hardware of a pod.

    Attributes:
        devices: Devices that the pod may use. The server uses the first one.
        host: The machine without its devices.
        node_product: Product in the node's label; None if it is not known.
        problem: Reason why there are no devices, as a clause.
    """

    devices: Sequence[Hardware]
    host: Hardware
    node_product: str | None = None
    problem: str = "no driver answers"


def needs_device(request: PullRequest) -> bool:
    """Whether the choice depends on the GPU."""
    if all(engine.product is None for engine in request.engines):
        return False
    return traits(request.backend).runs_on_gpu or len(request.engines) > 1


def choose_engine(request: PullRequest, place: Place) -> PullableEngine:
    """Return the engine for this place.

    Raises:
        enginesmith_contract.errors.EngineRefusedError: `NoGpu`, `NodeMislabelled`, `NoEngineForGpu`, `NoEngineForArch`.
    """
    if not needs_device(request):
        return _only_of_arch(request, place.host) if len(request.engines) > 1 else request.engines[0]
    device = _device(request, place)
    for engine in request.engines:
        if _is_for(engine, device):
            return engine
    refuse_mislabelled(place.node_product, device)
    raise _no_engine(request, device)


def _device(request: PullRequest, place: Place) -> Hardware:
    if place.devices:
        return place.devices[0]
    if not traits(request.backend).runs_on_gpu and place.node_product:
        return place.host.model_copy(update={"product": canonical_product(place.node_product)})
    raise EngineRefusedError(
        "this pod sees no GPU",
        where=request.model.target,
        why=f"the engines are for {_wanted(request)}, and {place.problem}",
        remedy="check that NVIDIA's device plugin gives pods the GPU and driver libraries (CDI or a RuntimeClass)",
        reason="NoGpu",
    )


def _is_for(engine: PullableEngine, device: Hardware) -> bool:
    if engine.product is None or device.product is None or engine.arch != device.arch:
        return False
    same_slice = canonical_mig_profile(engine.mig_profile) == canonical_mig_profile(device.mig_profile)
    return same_slice and canonical_product(engine.product) == canonical_product(device.product)


def _only_of_arch(request: PullRequest, host: Hardware) -> PullableEngine:
    for engine in request.engines:
        if engine.arch == host.arch:
            return engine
    raise EngineRefusedError(
        "no engine is for this machine",
        where=request.model.target,
        why=f"the engines are for {', '.join(engine.arch for engine in request.engines)}, the machine is {host.arch}",
        remedy="wait until the engine of this architecture is built",
        reason="NoEngineForArch",
    )


def _no_engine(request: PullRequest, device: Hardware) -> EngineRefusedError:
    found = _spelled(device.product, device.mig_profile, device.arch)
    return EngineRefusedError(
        "no engine is for this GPU",
        where=request.model.target,
        why=f"the engines are for {_wanted(request)}, the GPU is {found}",
        remedy="correct the node's GPU labels, or let the target match this GPU, so that an engine is built for it",
        reason="NoEngineForGpu",
    )


def _wanted(request: PullRequest) -> str:
    return ", ".join(_spelled(engine.product, engine.mig_profile, engine.arch) for engine in request.engines)


def _spelled(product: str | None, mig_profile: str | None, arch: str) -> str:
    return " ".join(part for part in (product or "no GPU", mig_profile, f"on {arch}") if part)
