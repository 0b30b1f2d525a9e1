"""One form of request (profile, shapes, places of the outputs), worked out once and run many times.

Everything that depends on the form alone lies ready in it: what to copy from where to where, which address the
library reads, which views the answers are copied out of, and the recorded graph. A request of a known form does only
what depends on its values.
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
        call: the driver's function.
        target: address to write, as the function takes it.
        source: address to read.
        size: in bytes, not 0.
    """

    call: Callable[..., tuple[Any, ...]]
    target: Any
    source: Any
    size: int


@dataclass(slots=True, eq=False)
class Run:
    """See the module; a Recordable.

    Attributes:
        profile: index of the library's profile, and of the context that runs it.
        shapes: of every input.
        addresses: of every input, and of every output that has no allocator.
        feeds: the inputs that come from the host, with the pinned views that they are copied into.
        before: copies ahead of the inference.
        after: copies behind it.
        order: names of the outputs wanted.
        results: of each output wanted, a view to copy out of or memory of the caller's that was written; without
            the open ones.
        open_outputs: outputs wanted whose shape only the run tells.
        open_into: where the caller wants them, of those that it wants on the device.
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
    """Return what puts a run on the stream of one context: copies, inference, copies.

    Args:
        gpu: whose driver is called.
        execute: `execute_async_v3` of a context that is bound to the run.
        stream: the instance's.

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
