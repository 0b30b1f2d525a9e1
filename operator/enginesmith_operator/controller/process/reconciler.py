"""One pass over one key: selects the reconcile, measures it, and handles its errors."""

import logging
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Final

from enginesmith_operator.cluster.client import Api
from enginesmith_operator.cluster.errors import (
    ClusterError,
    ClusterUnavailableError,
    ConflictError,
    LeaseLostError,
    ObjectExistsError,
)
from enginesmith_operator.controller.engine_build.gather import BuildGatherer
from enginesmith_operator.controller.engine_build.reconcile import BuildReconciler
from enginesmith_operator.controller.inference_engine.gather import Gatherer
from enginesmith_operator.controller.inference_engine.reconcile import EngineReconciler
from enginesmith_operator.controller.process.faults import FaultReporter, fault_of
from enginesmith_operator.controller.process.logs import log_about
from enginesmith_operator.controller.shared.cache import Address, ObjectCache
from enginesmith_operator.controller.shared.explanations import Explanations
from enginesmith_operator.controller.shared.gpu_use import GpuUse
from enginesmith_operator.controller.shared.metrics import Metrics
from enginesmith_operator.controller.shared.policies import PolicyReader
from enginesmith_operator.controller.shared.settings import OperatorSettings
from enginesmith_operator.controller.watch.intake import Intake
from enginesmith_operator.controller.watch.nodes import NodeMemory
from enginesmith_operator.controller.watch.queue import WorkQueue
from enginesmith_operator.kinds import ENGINE_BUILD

__all__ = ["Reconciler"]

_LOGGER: Final = logging.getLogger(__name__)


class Reconciler:
    """Works on keys."""

    def __init__(
        self,
        *,
        api: Api,
        cache: ObjectCache,
        nodes: NodeMemory,
        intake: Intake,
        queue: WorkQueue[Address],
        metrics: Metrics,
        settings: OperatorSettings,
        catalog: Address,
    ) -> None:
        self._queue = queue
        self._metrics = metrics
        explanations = Explanations(api)
        gpus = GpuUse(cache, PolicyReader(cache))
        gatherer = Gatherer(cache, nodes, settings, catalog, _wall_clock, explain=explanations.of, gpus=gpus)
        self._engines = EngineReconciler(
            api=api,
            cache=cache,
            intake=intake,
            gatherer=gatherer,
            explanations=explanations,
            wall_clock=_wall_clock,
        )
        self._faults = FaultReporter(api=api, cache=cache, intake=intake)
        self._builds = BuildReconciler(
            api=api,
            cache=cache,
            intake=intake,
            metrics=metrics,
            gatherer=BuildGatherer(api=api, cache=cache, explanations=explanations, gpus=gpus, wall_clock=_wall_clock),
            rules=settings.pod_rules,
        )

    def ready_counts(self) -> Counter[str]:
        """Return the number of InferenceEngines by the status of their Ready condition."""
        return self._engines.ready_counts()

    async def reconcile(self, key: Address, waited: float) -> None:
        """Make one pass; after any failure, the key is queued again."""
        self._metrics.queue_seconds.observe(waited)
        begun = time.perf_counter()
        with log_about(key):
            result = await self._attempt(key)
        self._metrics.reconcile_seconds.labels(key.kind).observe(time.perf_counter() - begun)
        self._metrics.reconciles.labels(key.kind, result).inc()

    async def _attempt(self, key: Address) -> str:
        try:
            after = await self._pass(key)
        except LeaseLostError:
            return "stopped"
        except (ConflictError, ObjectExistsError) as error:
            # Another client was faster, or the cache is behind: the watch will deliver the new version.
            _LOGGER.debug("%s: %s", key, error)
            self._queue.retry(key)
            return "conflict"
        except ClusterUnavailableError as error:
            delay = self._queue.retry(key, at_least_seconds=error.retry_after_seconds or 0.0)
            _LOGGER.warning("%s: %s; again in %.1f s", _text(key), error, delay)
            return "unavailable"
        except ClusterError as error:
            delay = self._queue.retry(key)
            _LOGGER.error("%s: %s; again in %.1f s", _text(key), error, delay)  # noqa: TRY400 - the sentence says all
            return "refused"
        except Exception as error:
            fault, delay = fault_of(error), self._queue.retry(key)
            _LOGGER.exception("%s: fault %s of the operator; again in %.1f s", _text(key), fault.id, delay)
            await self._faults.report(key, fault, _wall_clock())
            return "fault"
        self._queue.keys.succeed(key)
        if after is not None:
            self._queue.add_after(key, after)
        return "ok"

    async def _pass(self, key: Address) -> float | None:
        """Make one pass and return in how many seconds the next one is wanted; None: when something changes."""
        _LOGGER.debug("pass over %s", _text(key))
        if key.kind == ENGINE_BUILD.kind:
            return await self._builds.reconcile(key)
        return await self._engines.reconcile(key)


def _wall_clock() -> datetime:
    return datetime.now(UTC)


def _text(key: Address) -> str:
    return f"{key.kind} {key.namespace}/{key.name}"
