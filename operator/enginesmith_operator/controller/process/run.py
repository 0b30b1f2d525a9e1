"""The operator's process: creates, connects and stops all parts.

    connection ── Sweeper (fills the cache) ── kopf (keeps it fresh) ── Intake ── WorkQueue ── Reconciler ── Api
                                 Elector (own thread), Registration ──────────────────────────────── gate ──┘

Both replicas keep a warm cache; only the one that leads works on its queue, and each write asks the Elector and the
Registration once more.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import kopf

from enginesmith_operator.api.conditions import ConditionStatus
from enginesmith_operator.cluster.client import Api, WriteObserver
from enginesmith_operator.cluster.connection import connect
from enginesmith_operator.cluster.errors import ClusterError
from enginesmith_operator.cluster.transport import Transport
from enginesmith_operator.controller.process.health import Health, HealthServer
from enginesmith_operator.controller.process.leader import Elector
from enginesmith_operator.controller.process.reconciler import Reconciler
from enginesmith_operator.controller.process.registration import Registration
from enginesmith_operator.controller.shared.cache import Address, ObjectCache
from enginesmith_operator.controller.shared.metrics import CountingObserver, Metrics
from enginesmith_operator.controller.shared.settings import OperatorSettings
from enginesmith_operator.controller.watch.handlers import build_registry, kopf_settings
from enginesmith_operator.controller.watch.intake import JOB_NAME, Intake
from enginesmith_operator.controller.watch.nodes import NodeMemory
from enginesmith_operator.controller.watch.queue import WorkQueue
from enginesmith_operator.controller.watch.sweep import Sweeper
from enginesmith_operator.kinds import CONFIG_MAP, WATCHED
from enginesmith_operator.objects.labels import ENGINE, ENGINE_KEY

__all__ = ["Process", "run_operator"]

_LOGGER: Final = logging.getLogger(__name__)
_EXIT_LEASE_LOST: Final = 1
_BEAT_SECONDS: Final = 1.0
_FIRST_LISTING_RETRY_SECONDS: Final = 5.0
_LISTED_SECONDS: Final = 3.0
"""If no further object of a watch's own listing arrives within this time, the listing is complete."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """What distinguishes this process from the other replica.

    Attributes:
        namespace: that the operator itself runs in.
        identity: unique among replicas.
        observer: sees every write; None: there is no observer.
    """

    namespace: str
    identity: str
    observer: WriteObserver | None = None


async def run_operator(settings: OperatorSettings, process: Process) -> None:
    """Run until SIGTERM or SIGINT, then release the Lease.

    Raises:
        enginesmith_operator.cluster.errors.ClusterError: there is no way to the API server.
        enginesmith_operator.controller.process.registration.OtherOperatorError: another operator has the namespaces.
    """
    await _Operator(settings, process).run()


class _Operator:
    """The parts of one process."""

    def __init__(self, settings: OperatorSettings, process: Process) -> None:
        self._settings = settings
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._metrics = Metrics()
        self._health = Health(clock=time.monotonic, metrics=self._metrics_text)
        self._cache = ObjectCache(indexed_labels=(ENGINE, ENGINE_KEY, JOB_NAME))
        self._nodes = NodeMemory(
            settings.labels.merged(), grace_seconds=float(settings.node_grace_seconds), clock=time.time
        )
        self._queue: WorkQueue[Address] = WorkQueue(clock=self._loop.time)
        self._catalog = Address(CONFIG_MAP.kind, settings.catalog.namespace or process.namespace, settings.catalog.name)
        # Where the catalog is, there must be a watch, too.
        self._namespaces = sorted({*settings.namespaces, self._catalog.namespace}) if settings.namespaces else []
        self._intake = Intake(
            self._cache, self._nodes, self._catalog, lambda key, hurry: self._queue.add(key, hurry=hurry)
        )
        self._reconciler: Reconciler | None = None
        self._leads = asyncio.Event()
        self._stopping = asyncio.Event()
        self._heard_listing_at = 0.0
        self._listed: set[str] | None = set()
        self._elector = Elector(
            open_transport=_open_transport,
            namespace=settings.lease.namespace or process.namespace,
            name=settings.lease.name,
            identity=process.identity,
            on_lead=self._begin_to_lead,
            on_lost=lambda: os._exit(_EXIT_LEASE_LOST),
        )

    async def run(self) -> None:
        self._hear_signals()
        health = HealthServer(self._health, ("0.0.0.0", self._settings.health_port))  # noqa: S104 - kubelet probes the pod's address
        async with await _open_transport() as transport:
            observer = CountingObserver(self._metrics, self._process.observer)
            registration = self._registration(transport)
            api = Api(
                transport, gate=lambda: self._elector.is_leading() and registration.may_write(), observer=observer
            )
            self._elector.start()
            try:
                await self._work_until_stopped(api, registration)
            finally:
                # After the workers: the operator releases its Lease only when no write of its own is in progress.
                await asyncio.to_thread(self._elector.stop)
                health.stop()

    def _registration(self, transport: Transport) -> Registration:
        lease = self._settings.lease

        def tell(problem: str) -> None:
            self._health.may_not_work = problem

        return Registration(
            transport,
            namespace=self._settings.registration_namespace,
            operator=f"{lease.namespace or self._process.namespace}/{lease.name}",
            process=self._process.identity,
            namespaces=self._namespaces,
            tell=tell,
        )

    async def _work_until_stopped(self, api: Api, registration: Registration) -> None:
        sweeper = Sweeper(
            *(api, self._cache, self._nodes, self._intake), catalog=self._catalog.name, namespaces=self._namespaces
        )
        self._reconciler = reconciler = Reconciler(
            api=api,
            cache=self._cache,
            nodes=self._nodes,
            intake=self._intake,
            queue=self._queue,
            metrics=self._metrics,
            settings=self._settings,
            catalog=self._catalog,
        )
        tasks = [
            asyncio.create_task(self._beat(), name="beat"),
            asyncio.create_task(registration.keep(self._leads), name="registration"),
            asyncio.create_task(self._drive(sweeper, reconciler, registration), name="drive"),
        ]
        stopped = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            done, _ = await asyncio.wait((*tasks, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Also where this is cancelled: a task that continues would open connections after the transport has closed.
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)
        for task in done - {stopped}:
            # None of them ends by itself. If one fails, the process ends, and kubelet restarts it.
            task.result()

    async def _drive(self, sweeper: Sweeper, reconciler: Reconciler, registration: Registration) -> None:
        await registration.is_free.wait()
        while True:
            try:
                await sweeper.sweep()
                break
            except ClusterError as error:
                _LOGGER.warning("the cluster cannot be listed: %s", error)
                self._health.not_ready = f"the cluster cannot be listed: {error}"
                await asyncio.sleep(_FIRST_LISTING_RETRY_SECONDS)
        self._health.not_ready = ""
        _LOGGER.info("the cluster is listed: %d objects to reconcile", len(self._queue.keys))
        async with asyncio.TaskGroup() as group:
            # Not earlier: kopf ends if one of Enginesmith's kinds is not installed yet.
            self._heard_listing_at = self._loop.time()
            group.create_task(self._watch(), name="watch")
            group.create_task(self._resync(sweeper, self._cache.mark), name="resync")
            group.create_task(self._settle_nodes(), name="nodes")
            await registration.is_made.wait()
            self._metrics.leads.set(1)
            group.create_task(self._queue.work(reconciler.reconcile, workers=self._settings.workers), name="work")

    async def _resync(self, sweeper: Sweeper, swept: int) -> None:
        await self._until_watches_have_listed()
        listed, self._listed = self._listed or set(), None
        # Neither the first sweep nor the watches' own lists report what was deleted between them, and a deleted pod
        # would delay a rollout until the next sweep.
        with _told_where_it_fails():
            await sweeper.drop_unlisted(listed, since=swept)
        while True:
            await asyncio.sleep(float(self._settings.resync_seconds))
            with _told_where_it_fails():
                await sweeper.sweep()
            self._intake.wake_all()

    async def _until_watches_have_listed(self) -> None:
        while True:
            rest = self._heard_listing_at + _LISTED_SECONDS - self._loop.time()
            if rest <= 0:
                return
            await asyncio.sleep(rest)

    def _hear_listing(self, uid: str) -> None:
        self._heard_listing_at = self._loop.time()
        if self._listed is not None:
            self._listed.add(uid)

    async def _settle_nodes(self) -> None:
        while True:
            due = self._nodes.next_change()
            await asyncio.sleep(_BEAT_SECONDS if due is None else min(due + 0.05, _BEAT_SECONDS))
            if self._nodes.settle():
                self._intake.wake_all()

    def _hear_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopping.set)

    async def _watch(self) -> None:
        started = asyncio.Event()
        # kopf ends by an exception where a watch cannot go on; the process ends with it.
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hear_signals_again(started))
            await kopf.operator(
                registry=build_registry(self._intake.take, self._hear_listing),
                settings=kopf_settings(self._catalog.name),
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                standalone=True,
                # Otherwise kopf asks for the user's name, and a pod's user has none.
                identity=self._process.identity,  # type: ignore[arg-type]  # kopf exports no name for it
                ready_flag=started,
            )

    async def _hear_signals_again(self, started: asyncio.Event) -> None:
        """Take the signals back from kopf, which would end its watches before the workers."""
        await started.wait()
        self._hear_signals()

    def _begin_to_lead(self) -> None:
        self._loop.call_soon_threadsafe(self._leads.set)

    async def _beat(self) -> None:
        while True:
            expected = self._loop.time() + _BEAT_SECONDS
            await asyncio.sleep(_BEAT_SECONDS)
            self._metrics.loop_lag_seconds.set(max(self._loop.time() - expected, 0.0))
            self._health.beat()

    def _metrics_text(self) -> bytes:
        self._metrics.queue_depth.set(len(self._queue.keys))
        self._metrics.queue_delayed.set(self._queue.keys.delayed)
        for resource in WATCHED:
            self._metrics.objects.labels(resource.kind).set(self._cache.count(resource.kind))
        if self._reconciler is not None:
            counts = self._reconciler.ready_counts()
            for status in ConditionStatus:
                self._metrics.engines.labels(status.value).set(counts[status.value])
        return self._metrics.text()


@contextmanager
def _told_where_it_fails() -> Iterator[None]:
    try:
        yield
    except ClusterError as error:
        _LOGGER.warning("the cluster cannot be listed: %s", error)


async def _open_transport() -> Transport:
    return Transport(await connect())
