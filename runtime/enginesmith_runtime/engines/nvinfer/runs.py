"""A run for one form of request (profile, shapes, places of the outputs). It is computed once and run many times.

It contains everything that depends only on the form: the copies, the addresses for the library, the views of the
results, and the captured graph. A request of a known form then only handles its values.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from enginesmith_runtime.engines.cuda.device import Gpu
from enginesmith_runtime.engines.cuda.faults import CudaCallError, EnqueueRefusedError
from enginesmith_runtime.engines.cuda.graphs import FIRST_NEEDED
from enginesmith_runtime.engines.interface import Array, DeviceArray

__all__ = ["Copy", "Run", "create_enqueue"]


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy on the instance's stream.

    Attributes:
        call: Function of the driver.
        target: Address to write, in the type of the function.
        source: Address to read.
        size: Size in bytes, greater than 0.
    """

    call: Callable[..., tuple[Any, ...]]
    target: Any
    source: Any
    size: int


@dataclass(slots=True, eq=False)
class Run:
    """A run, which is a Recordable; see the module.

    Attributes:
        profile: Index of the library's profile and of its context.
        shapes: Shapes of all inputs.
        addresses: Addresses of all inputs, and of all outputs without an allocator.
        feeds: Inputs from the host, with the pinned views that receive them.
        before: Copies before the inference.
        after: Copies after the inference.
        order: Names of the requested outputs.
        results: For each requested output except the open ones: a view to copy from, or memory of the caller that was
            written.
        open_outputs: Requested outputs whose shape only the run determines.
        open_into: Places of those open outputs that the caller wants on the device.
    """

    profile: int
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    addresses: tuple[tuple[str, int], ...] = ()
    feeds: tuple[tuple[str, Array], ...] = ()
    before: tuple[Copy, ...] = ()
    after: tuple[Copy, ...] = ()
    order: tuple[str, ...] = ()
    results: dict[str, Array | DeviceArray] = field(default_factory=dict)
    open_outputs: tuple[str, ...] = ()
    open_into: Mapping[str, DeviceArray] = field(default_factory=dict)
    graph: Any = None
    can_record: bool = True
    seen: int = 0
    needed: int = FIRST_NEEDED
    used: int = 0


def create_enqueue(
    gpu: Gpu,
    execute: Callable[[int], bool],
    stream: Any,
) -> Callable[[Run], None]:
    """Return a function that enqueues a run on the stream of one context: copies, inference, copies.

    Args:
        gpu: GPU with the driver to call.
        execute: `execute_async_v3` of a context that is bound to the run.
        stream: Stream of the instance.

    Returns:
        A function that raises CudaCallError or EnqueueRefusedError.
    """
    success = gpu.bindings.CUresult.CUDA_SUCCESS
    handle = int(stream)

    def enqueue(run: Run) -> None:
        for copy in run.before:
            code = copy.call(copy.target, copy.source, copy.size, stream)[0]
            if code is not success:
                raise CudaCallError(copy.call.__name__, int(code))
        if not execute(handle):
            raise EnqueueRefusedError
        for copy in run.after:
            code = copy.call(copy.target, copy.source, copy.size, stream)[0]
            if code is not success:
                raise CudaCallError(copy.call.__name__, int(code))

    return enqueue
