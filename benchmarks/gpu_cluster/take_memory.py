"""Has nearly all memory of the first GPU until it is ended: python -m benchmarks.gpu_cluster.take_memory."""

import ctypes
import signal
from typing import Final

__all__: list[str] = []

_STEP: Final = 512 << 20
_LEFT: Final = 96 << 20


def main() -> None:
    """Take memory in steps until little is left, say how much, and wait.

    Raises:
        OSError: there is no driver.
        SystemExit: the driver refused a step of the set-up.
    """
    cuda = ctypes.CDLL("libcuda.so.1")
    context, device = ctypes.c_void_p(), ctypes.c_int()
    _call(cuda.cuInit(0))
    _call(cuda.cuDeviceGet(ctypes.byref(device), 0))
    _call(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    _call(cuda.cuCtxSetCurrent(context))
    taken, size = 0, _STEP
    while size > _LEFT:
        if cuda.cuMemAlloc_v2(ctypes.byref(ctypes.c_void_p()), ctypes.c_size_t(size)) == 0:
            taken += size
        else:
            size //= 2
    print(f"{taken >> 20} MiB", flush=True)
    signal.pause()


def _call(code: int) -> None:
    if code:
        raise SystemExit(f"CUDA error {code}")


if __name__ == "__main__":
    main()
