"""Checks before a library loads an engine: the node's label must fit the device, and the engine must fit it.

The version matrix gives an error message with a remedy. TensorRT would only return None and log the reason, or load a
plan that later hangs.
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
    """Return if no rule refuses the engine.

    Args:
        manifest: Manifest of the engine to load.
        device: Hardware that the device reports.
        version: Full version of the installed library.

    Raises:
        EngineRefusedError: Lists every rule that refuses, with what was found and what is needed.
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
    """Return if the node's label fits the device, or there is no label.

    Args:
        label: Label `nvidia.com/gpu.product` of the node, as the process that placed this pod read it.
        device: Hardware that the device reports.

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
        why=f"the node's label is {label}, and the GPU is {found}",
        remedy="restart GPU Feature Discovery on the node, or correct the label",
        reason="NodeMislabelled",
    )


def find_cuda_device(name: str, compute_capability: str, devices: Sequence[Hardware]) -> Hardware:
    """Return the NVML device that is CUDA's first device, because CUDA and NVML use different orders.

    Args:
        name: Name of the device in CUDA.
        compute_capability: Compute capability in CUDA, such as "9.0".
        devices: Devices that NVML lists.

    Raises:
        EngineRefusedError: `DevicesDisagree` if CUDA's device is not among them.
    """
    product = product_from_device_name(name)
    for device in devices:
        if (device.product, device.compute_capability) == (product, compute_capability):
            return device
    listed = ", ".join(f"{device.product} ({device.compute_capability})" for device in devices) or "none"
    raise EngineRefusedError(
        "CUDA and NVML see different GPUs",
        where="device 0",
        why=f"CUDA has {product} ({compute_capability}), and NVML lists {listed}",
        remedy="give the container the GPU as one resource; check CUDA_VISIBLE_DEVICES and the NVIDIA runtime",
        reason="DevicesDisagree",
    )
