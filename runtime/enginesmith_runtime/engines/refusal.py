"""Questions before any library sees an engine: is this the device that the node claims, and does the engine fit it?

The answer comes from the version matrix, as a sentence that a person can act on. TensorRT itself would say "None" and
leave the reason in a log, or load a plan that later hangs.
"""

from collections.abc import Sequence

from enginesmith_contract.backends import Hardware
from enginesmith_contract.errors import EngineRefusedError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.matrix.portability import fits
from enginesmith_contract.products import canonical_mig_profile, product_from_device_name, split_product
from enginesmith_contract.verdicts import Verdict

__all__ = ["find_cuda_device", "refuse_mislabelled", "refuse_unless_fits"]


def refuse_unless_fits(manifest: Manifest, device: Hardware, version: str) -> None:
    """Return where no rule says no.

    Args:
        manifest: of the engine to load.
        device: what the device says of itself.
        version: the installed library's, in full.

    Raises:
        EngineRefusedError: every rule that refuses, with what was found and what would make it a yes.
    """
    refusals = [answer for answer in fits(manifest, device, version) if answer.verdict is Verdict.NO]
    if not refusals:
        return
    wanted = "; ".join(answer.wanted for answer in refusals if answer.wanted)
    raise EngineRefusedError(
        "the engine does not fit this machine",
        where=f"engine {manifest.engine_key[:12]}",
        why="; ".join(answer.found for answer in refusals),
        remedy=f"it needs {wanted}" if wanted else "",
        reason=refusals[0].rule,
    )


def refuse_mislabelled(label: str | None, device: Hardware) -> None:
    """Return where the node's label tells the truth, or there is none to compare.

    Args:
        label: the node's `nvidia.com/gpu.product`, as the process or the user that placed this process read it.
        device: what the device says of itself.

    Raises:
        EngineRefusedError: `NodeMislabelled`.
    """
    if not label or device.product is None:
        return
    said = split_product(label)
    same_slice = canonical_mig_profile(said.mig_profile) in {None, canonical_mig_profile(device.mig_profile)}
    if said.product == device.product and same_slice:
        return
    found = device.product if same_slice else f"{device.product}, MIG profile {device.mig_profile or 'none'}"
    raise EngineRefusedError(
        "the node is mislabelled",
        where="nvidia.com/gpu.product",
        why=f"the node says {label}, the GPU is {found}",
        remedy="restart GPU Feature Discovery on the node, or correct the label",
        reason="NodeMislabelled",
    )


def find_cuda_device(name: str, compute_capability: str, devices: Sequence[Hardware]) -> Hardware:
    """Return which of NVML's devices is CUDA's first; the two count in orders of their own.

    Args:
        name: of the device, as CUDA says.
        compute_capability: as CUDA says, "9.0".
        devices: what NVML lists.

    Raises:
        EngineRefusedError: `DevicesDisagree`: CUDA's device is none of them.
    """
    product = product_from_device_name(name)
    for device in devices:
        if (device.product, device.compute_capability) == (product, compute_capability):
            return device
    listed = ", ".join(f"{device.product} ({device.compute_capability})" for device in devices) or "none"
    raise EngineRefusedError(
        "CUDA and NVML see different GPUs",
        where="device 0",
        why=f"CUDA says {product} ({compute_capability}), NVML lists {listed}",
        remedy="give the container the GPU as one resource; check CUDA_VISIBLE_DEVICES and the NVIDIA runtime",
        reason="DevicesDisagree",
    )
