"""Inference with limits and counters for each client. A server without them does not use this class."""

from collections.abc import Callable

from typing_extensions import override

from enginesmith_runtime.engines.interface import Array
from enginesmith_runtime.server.clients import Clients
from enginesmith_runtime.server.errors import ProtocolError
from enginesmith_runtime.server.protocol.infer import DeviceLost, Inference, InferenceLimits
from enginesmith_runtime.server.protocol.request_plan import RequestPlan
from enginesmith_runtime.server.repository import Repository
from enginesmith_runtime.server.shared_memory.region_table import RegionTable
from enginesmith_runtime.server.transport.interface import CallContext, Reply

__all__ = ["LimitedInference"]


class LimitedInference(Inference):
    """See `Inference` and `Clients`."""

    def __init__(
        self,
        repository: Repository,
        limits: InferenceLimits,
        regions: RegionTable | None,
        device_lost: DeviceLost,
        clients: Clients,
    ) -> None:
        super().__init__(repository, limits, regions, device_lost)
        self._clients = clients

    @override
    def submit(
        self,
        plan: RequestPlan,
        read_inputs: Callable[[], dict[str, Array]],
        context: CallContext,
        reply: Reply,
        id_field: bytes = b"",
    ) -> None:
        try:
            entry = self._clients.enter(context, reply)
        except ProtocolError as error:
            plan.model.statistics.record_failure(error, 0)
            raise
        try:
            super().submit(plan, read_inputs, context, entry, id_field)
        except Exception as error:
            entry.leave(error)
            raise
