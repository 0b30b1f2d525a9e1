"""Inference that sends a span for each request. A server without tracing does not use this class."""

import time
from collections.abc import Callable

from typing_extensions import override

from enginesmith_runtime.engines.interface import Array
from enginesmith_runtime.server.clients import Clients
from enginesmith_runtime.server.errors import ProtocolError
from enginesmith_runtime.server.model import LoadedModel
from enginesmith_runtime.server.protocol.infer import DeviceLost, InferenceLimits, InferJob
from enginesmith_runtime.server.protocol.limited_inference import LimitedInference
from enginesmith_runtime.server.protocol.request_plan import RequestPlan
from enginesmith_runtime.server.repository import Repository
from enginesmith_runtime.server.shared_memory.region_table import RegionTable
from enginesmith_runtime.server.statistics import RunTimes
from enginesmith_runtime.server.tracing import Moments, Spans
from enginesmith_runtime.server.transport.interface import Answer, CallContext, Reply

__all__ = ["TracedInference"]


class TracedInference(LimitedInference):
    """See `LimitedInference` and `Spans`."""

    def __init__(
        self,
        repository: Repository,
        limits: InferenceLimits,
        regions: RegionTable | None,
        device_lost: DeviceLost,
        clients: Clients,
        spans: Spans,
    ) -> None:
        super().__init__(repository, limits, regions, device_lost, clients)
        self._spans = spans
        self._job = _traced_job(spans)

    @override
    def submit(
        self,
        plan: RequestPlan,
        read_inputs: Callable[[], dict[str, Array]],
        context: CallContext,
        reply: Reply,
        id_field: bytes = b"",
    ) -> None:
        began_ns = time.perf_counter_ns()
        try:
            super().submit(plan, read_inputs, context, reply, id_field)
        except ProtocolError as error:
            self._spans.record(context.metadata(), _attributes(plan.model, plan.batch), Moments(began_ns), error.reason)
            raise


def _traced_job(spans: Spans) -> type[InferJob]:
    class TracedJob(InferJob):
        _ran: tuple[int, int] = (0, 0)

        @override
        def times(self, started_ns: int, read_ns: int, inferred_ns: int, ended_ns: int) -> RunTimes:
            self._ran = (started_ns, inferred_ns)
            return super().times(started_ns, read_ns, inferred_ns, ended_ns)

        @override
        def send(self, answer: Answer) -> None:
            self._record()
            super().send(answer)

        @override
        def refuse(self, error: ProtocolError) -> None:
            self._record(error.reason)
            super().refuse(error)

        def _record(self, error: str = "") -> None:
            started_ns, inferred_ns = self._ran
            queued_ns = self.queued_ns if started_ns or error else 0
            moments = Moments(self.queued_ns - self._decode_ns, queued_ns, started_ns, inferred_ns)
            spans.record(self.context.metadata(), _attributes(self.plan.model, self.rows), moments, error)

    return TracedJob


def _attributes(model: LoadedModel, rows: int) -> dict[str, str | int]:
    return {
        "enginesmith.model": model.name,
        "enginesmith.version": model.version,
        "enginesmith.target": model.target,
        "enginesmith.engine": model.manifest.engine_key,
        "enginesmith.batch_size": rows,
    }
