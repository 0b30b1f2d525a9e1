"""The GPU that a build is on, held against the one that the plan read from the node's labels.

A label can lie, and a driver can be older than its label: an engine that is measured on another GPU would be stored
under the wrong product, and TensorRT's own words for an old driver name no version.
"""

from enginesmith_contract.backend_traits import MatrixPart, traits
from enginesmith_contract.backends import Hardware, Toolchain
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import BuildError
from enginesmith_contract.matrix.judges import judge_driver
from enginesmith_contract.matrix.load import load_matrix
from enginesmith_contract.matrix.query import find_release
from enginesmith_contract.products import canonical_mig_profile
from enginesmith_contract.verdicts import Verdict

__all__ = ["check_device"]


def check_device(device: Hardware, request: BuildRequest) -> None:
    """Return where the device is the one that the request names, and its driver runs the toolchain.

    Raises:
        BuildError: `WrongDevice` or `DriverFloor`.
    """
    _check_product(device, request.hardware)
    _check_driver(device, request.toolchain)


def _check_product(device: Hardware, wanted: Hardware) -> None:
    here, there = canonical_mig_profile(device.mig_profile), canonical_mig_profile(wanted.mig_profile)
    if wanted.product in {None, device.product} and here == there:
        return
    raise BuildError(
        "this is not the GPU that the engine is for",
        where="nvidia.com/gpu.product",
        why=f"the node's labels say {_spelled(wanted.product, there)}, the GPU is {_spelled(device.product, here)}",
        remedy="restart GPU Feature Discovery on the node, or correct the label; nothing was built or stored",
        reason="WrongDevice",
    )


def _check_driver(device: Hardware, toolchain: Toolchain) -> None:
    if toolchain.cuda is None:
        return
    matrix = load_matrix()
    is_release = traits(toolchain.backend).matrix is MatrixPart.RELEASES
    release = find_release(matrix, toolchain.version) if is_release else None
    answer = judge_driver(matrix, release, toolchain.cuda, device.driver)
    if answer.verdict is not Verdict.NO:
        return
    raise BuildError(
        "the NVIDIA driver of the node is too old",
        where=f"toolchain {toolchain.name}",
        why=answer.found,
        remedy=f"install {answer.wanted} on the node, or let spec.toolchain choose a toolchain for an older CUDA",
        reason=answer.rule,
    )


def _spelled(product: str | None, mig_profile: str | None) -> str:
    return f"{product or 'no GPU'}{f' (MIG profile {mig_profile})' if mig_profile else ''}"
