"""Records what an inference enqueues as a CUDA graph, and keeps the graphs that are used.

A small request spends more time in launching kernels than in running them; a graph launches all of them, and the
copies, with one call. It holds for the shapes and the addresses that it was recorded with, so there is one for each
form of request, as many as the limit allows, and the one unused for longest is dropped.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from enginesmith_runtime.engines.cuda.device import Gpu
from enginesmith_runtime.engines.cuda.faults import CudaCallError, EnqueueRefusedError, is_sticky

__all__ = ["FIRST_NEEDED", "GraphCache", "Recordable"]

# A form of request must have been seen this often before it gets a graph: recording costs as much as many launches.
FIRST_NEEDED: Final = 2
# And this many times as often after it lost its graph to another, so that more forms than graphs do not chase each
# other, recording at every request.
_BACK_OFF: Final = 4
_MOST_NEEDED: Final = 1024


class Recordable(Protocol):
    """A form of request.

    Attributes:
        graph: the executable graph, or None.
        can_record: False once a recording failed, or where it would be wrong.
        seen: how often it ran since it was made or lost its graph.
        needed: `seen` from which on it gets a graph.
        used: when it was last launched, by the instance's count of launches.
    """

    graph: Any
    can_record: bool
    seen: int
    needed: int
    used: int


class GraphCache:
    """The graphs of one instance, recorded on its stream."""

    def __init__(self, gpu: Gpu, stream: Any, limit: int) -> None:
        self._gpu = gpu
        self._stream = stream
        self._limit = limit
        self._kept: list[Recordable] = []

    @property
    def is_on(self) -> bool:
        """Whether any graph is recorded at all."""
        return self._limit > 0

    def wants(self, form: Recordable) -> bool:
        """Whether it is worth while to record `form` now."""
        return self.is_on and form.can_record and form.graph is None and form.seen >= form.needed

    def record(self, form: Recordable, enqueue: Callable[[], None], now: int) -> None:
        """Record what `enqueue` puts on the stream; nothing runs. `form` continues without a graph where that fails.

        Args:
            form: gets the graph.
            enqueue: has run once before with the same shapes and addresses.
            now: the instance's present count of launches, as in `Recordable.used`.

        Raises:
            CudaCallError: the device failed meanwhile.
        """
        if len(self._kept) >= self._limit:
            self._evict()
        graph = self._capture(enqueue)
        if graph is None:
            form.can_record = False
            return
        form.graph = graph
        form.used = now
        self._kept.append(form)

    def clear(self) -> None:
        """Free every graph; none may be running."""
        for form in self._kept:
            self._gpu.bindings.cuGraphExecDestroy(form.graph)
            form.graph = None
        self._kept.clear()

    def _evict(self) -> None:
        oldest = min(self._kept, key=lambda form: form.used)
        self._kept.remove(oldest)
        self._gpu.bindings.cuGraphExecDestroy(oldest.graph)
        oldest.graph = None
        oldest.seen = 0
        oldest.needed = min(oldest.needed * _BACK_OFF, _MOST_NEEDED)

    def _capture(self, enqueue: Callable[[], None]) -> Any | None:
        cuda, check = self._gpu.bindings, self._gpu.check
        # Other threads may go on taking memory meanwhile; this one takes none.
        mode = cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        graph = None
        try:
            check("cuStreamBeginCapture", cuda.cuStreamBeginCapture(self._stream, mode))
            try:
                enqueue()
            finally:
                graph = check("cuStreamEndCapture", cuda.cuStreamEndCapture(self._stream))
            executable = check("cuGraphInstantiate", cuda.cuGraphInstantiate(graph, 0))
            # So that the first launch need not bring it to the device.
            check("cuGraphUpload", cuda.cuGraphUpload(executable, self._stream))
        except EnqueueRefusedError:
            return None
        except CudaCallError as error:
            if is_sticky(error.code):
                raise
            return None
        finally:
            if graph is not None:
                cuda.cuGraphDestroy(graph)
        return executable
