"""Checks for a CUDA driver before any NVIDIA library is used, because TensorRT's Builder aborts without a driver."""

import ctypes
import os
from collections.abc import Mapping
from typing import Final

from enginesmith_contract.errors import EnginesmithError
from enginesmith_runtime.engines.cuda.faults import describe

__all__ = ["require_driver"]

_SUCCESS: Final = 0
_NO_DEVICE: Final = 100
_REMEDIES: Final[Mapping[int, str]] = {
    34: "remove the folder of stubs from LD_LIBRARY_PATH, and give the container the driver's own libraries",
    803: "restart the node: its driver was updated, and the old kernel module is still loaded",
    804: "remove the package cuda-compat from the image: this GPU needs the driver's own libraries",
}
_LIBRARY = "libcuda.so.1"


def require_driver(failure: type[EnginesmithError], library: str = _LIBRARY) -> None:
    """Return if the driver's library loads and finds a device.

    Raises:
        EnginesmithError: An error of class `failure` with the driver's error number.
    """
    try:
        initialise = ctypes.CDLL(library).cuInit
    except (OSError, AttributeError) as error:  # missing, or a stub without the function
        raise failure(
            "there is no NVIDIA driver here",
            where=library,
            why="the driver's library cannot be loaded",
            remedy="run on a node with a GPU; in a container, with the NVIDIA runtime and a GPU resource",
            reason="NoDriver",
        ) from error
    code = initialise(0)
    if code == _NO_DEVICE:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f"; CUDA_VISIBLE_DEVICES is {visible!r}"
        raise failure(
            "the NVIDIA driver finds no GPU here",
            where="cuInit",
            why=f"{describe(code)}{hidden}",
            remedy="let the pod ask for a GPU resource such as nvidia.com/gpu; outside of a pod, unset the variable",
            reason="NoDevice",
        )
    if code != _SUCCESS:
        raise failure(
            "the NVIDIA driver does not start",
            where="cuInit",
            why=describe(code),
            remedy=_REMEDIES.get(code, "check nvidia-smi on the node"),
            reason="NoDriver",
        )
