"""Whether there is a CUDA driver, asked before any library of NVIDIA's is: without one, TensorRT's Builder aborts."""

import ctypes

from enginesmith_contract.errors import EnginesmithError

__all__ = ["require_driver"]

_SUCCESS = 0
_LIBRARY = "libcuda.so.1"


def require_driver(failure: type[EnginesmithError], library: str = _LIBRARY) -> None:
    """Return where the driver's library loads and finds a device.

    Raises:
        EnginesmithError: of the class `failure`, with the driver's own number.
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
    if code != _SUCCESS:
        raise failure(
            "the NVIDIA driver does not start",
            where="cuInit",
            why=f"CUDA error {code}",
            remedy="check nvidia-smi on the node",
            reason="NoDriver",
        )
