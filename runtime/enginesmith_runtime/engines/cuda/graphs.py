"""Captures the work of an inference as a CUDA graph, and caches the graphs.

A small request spends more time in launching kernels than in running them. A graph launches all kernels and copies with
one call. It is valid only for the shapes and addresses of its capture, so each form of request has its own graph. If
the limit is reached, the least recently used graph is dropped.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from enginesmith_runtime.engines.cuda.device import Gpu
from enginesmith_runtime.engines.cuda.faults import CudaCallError, EnqueueRefusedError, is_sticky

__all__ = ["FIRST_NEEDED", "GraphCache", "Recordable"]

# Number of requests of a form before it gets a graph, because a capture costs as much as many launches.
FIRST_NEEDED: Final = 2
# Factor of this number after a form lost its graph to another. It prevents a capture on every request if there are more
# forms than graphs.
_BACK_OFF: Final = 4
_MOST_NEEDED: Final = 1024


class Recordable(Protocol):
    """A form of request.

    Attributes:
        graph: Executable graph, or None.
        can_record: False if a capture failed or would be invalid.
        seen: Number of runs since the form was created or lost its graph.
        needed: Value of `seen` at which the form gets a graph.
        used: Launch count of the instance at the last launch of the form.
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
        """Whether graphs are enabled."""
        return self._limit > 0

    def wants(self, form: Recordable) -> bool:
        """Whether `form` should be captured now."""
        return self.is_on and form.can_record and form.graph is None and form.seen >= form.needed

    def record(self, form: Recordable, enqueue: Callable[[], None], now: int) -> None:
        """Capture the work of `enqueue` without running it. If the capture fails, `form` continues without a graph.

        Args:
            form: Form that receives the graph.
            enqueue: Function that enqueues the work. It must have run once with the same shapes and addresses.
            now: Current launch count of the instance, as in `Recordable.used`.

        Raises:
            CudaCallError: The device failed during the capture.
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
        """Free every graph. No graph may be running."""
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
        # In this mode other threads may allocate memory during the capture. This thread does not.
        mode = cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        graph = None
        try:
            check("cuStreamBeginCapture", cuda.cuStreamBeginCapture(self._stream, mode))
            try:
                enqueue()
            finally:
                graph = check("cuStreamEndCapture", cuda.cuStreamEndCapture(self._stream))
            executable = check("cuGraphInstantiate", cuda.cuGraphInstantiate(graph, 0))
            # Upload the graph now, so that the first launch does not have to.
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
