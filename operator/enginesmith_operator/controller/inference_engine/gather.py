"""Makes the snapshot of one InferenceEngine from the cache. It only reads, and decides nothing."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

from enginesmith_contract.backends import Toolchain
from enginesmith_contract.matrix.load import load_matrix
from enginesmith_operator.api.conditions import READY, SCHEDULED, ConditionStatus
from enginesmith_operator.api.engine_build import EngineBuildStatus
from enginesmith_operator.api.engine_status import EngineStatus, InheritedDefault
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.inference_engine.snapshot import (
    ChosenStore,
    EngineSnapshot,
    KnownBuild,
    KnownDeployment,
)
from enginesmith_operator.controller.shared.cache import Address, ObjectCache, StoredObject
from enginesmith_operator.controller.shared.conditions import find_condition
from enginesmith_operator.controller.shared.gpu_use import GpuUse
from enginesmith_operator.controller.shared.pod_facts import JobFacts, PodFacts, read_job, read_pod
from enginesmith_operator.controller.shared.policies import KnownPolicies, PolicyReader
from enginesmith_operator.controller.shared.settings import JobSettings, OperatorSettings
from enginesmith_operator.controller.shared.status_document import read_status
from enginesmith_operator.controller.watch.intake import JOB_NAME
from enginesmith_operator.controller.watch.nodes import NodeMemory
from enginesmith_operator.kinds import APPLIED, DEPLOYMENT, ENGINE_BUILD, INFERENCE_ENGINE, JOB, POD, VOLUME_CLAIM
from enginesmith_operator.objects.jobs import JobLimits
from enginesmith_operator.objects.labels import ENGINE, ENGINE_KEY, TARGET
from enginesmith_operator.objects.names import short_key
from enginesmith_operator.objects.serving_notes import read_notes
from enginesmith_operator.objects.stores import store_uri
from enginesmith_operator.planning.catalog import Catalog, read_catalog
from enginesmith_operator.planning.policy_defaults import with_defaults
from enginesmith_operator.planning.refusals import Refusal
from enginesmith_operator.planning.snapshot import Observed, ObservedDeployment

__all__ = ["Gatherer"]

_LOGGER: Final = logging.getLogger(__name__)
Explain = Callable[[str, str], str]
"""Returns what events say of an object (second uid) that the reconciled one (first uid) waits for; empty: nothing."""


class Gatherer:
    """Makes snapshots."""

    def __init__(
        self,
        cache: ObjectCache,
        nodes: NodeMemory,
        settings: OperatorSettings,
        catalog: Address,
        wall_clock: Callable[[], datetime],
        *,
        explain: Explain = lambda _owner, _uid: "",
        gpus: GpuUse | None = None,
    ) -> None:
        self._explain = explain
        self._cache = cache
        self._nodes = nodes
        self._settings = settings
        self._catalog_address = catalog
        self._wall_clock = wall_clock
        self._catalog: tuple[str, Catalog] = ("", read_catalog({}))
        self._base: tuple[Catalog, Observed] | None = None
        self._base_nodes: object = None
        self._policies = PolicyReader(cache)
        self._gpus = gpus or GpuUse(cache, self._policies)

    def gather(self, document: Json, engine: InferenceEngine) -> EngineSnapshot:
        """Return all that a pass over `engine` looks at."""
        namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
        uid = document["metadata"]["uid"]
        children = [
            one
            for one in self._cache.labelled(namespace, ENGINE, name)
            if one.address.kind == POD.kind or any(owner.uid == uid for owner in one.owners)
        ]
        status = read_status(EngineStatus, document, EngineStatus())
        known = self._policies.of_namespace(namespace)
        engine, inherited = with_defaults(engine, known.policies)
        jobs = {one.address.name: one for one in children if one.address.kind == JOB.kind}
        deployments = [_deployment(one) for one in children if one.address.kind == DEPLOYMENT.kind]
        store = self._forbidden_plugin(engine) or self._store(engine, namespace)
        catalog = self.catalog()
        return EngineSnapshot(
            document=document,
            engine=engine,
            status=status,
            store=store,
            catalog=catalog,
            observed=self._observed(status, store, deployments, catalog, known, inherited),
            preparation_jobs={key: self._job(uid, one) for key, one in jobs.items()},
            preparation_pods={key: self._pods_of_job(uid, one) for key, one in jobs.items()},
            builds=_by_key(children, uid),
            deployments={one.target: one for one in deployments},
            pods=self._serving_pods(children, document["metadata"], deployments),
            objects={
                (one.address.kind, one.address.name): one.document() for one in children if one.address.kind in APPLIED
            },
            limits_of_preparation=_limits(self._settings.preparation),
            limits_of_build=_limits(self._settings.build),
            tracing=None if self._settings.tracing is None else self._settings.tracing.environment,
            rules=self._settings.pod_rules,
            now=self._wall_clock(),
        )

    def catalog(self) -> Catalog:
        """Return the toolchain catalog, read once for each version of its ConfigMap."""
        found = self._cache.find(self._catalog_address)
        version = found.version if found is not None else ""
        if version != self._catalog[0]:
            catalog = read_catalog((found.document().get("data") or {}) if found is not None else {})
            self._catalog = (version, catalog)
            for problem in catalog.problems:
                _LOGGER.warning("the toolchain catalog: %s", problem.sentence())
        return self._catalog[1]

    def _observed(
        self,
        status: EngineStatus,
        store: ChosenStore | Refusal,
        deployments: list[KnownDeployment],
        catalog: Catalog,
        policies: KnownPolicies,
        inherited: tuple[InheritedDefault, ...],
    ) -> Observed:
        return self._fleet().model_copy(
            update={
                "deployments": tuple(
                    ObservedDeployment(target=one.target, ready_replicas=one.ready_replicas) for one in deployments
                ),
                "pinned": _pinned(status, deployments, catalog),
                "policies": policies.policies,
                "inherited": inherited,
                "unreadable_policies": policies.unreadable,
                "store": store.uri if isinstance(store, ChosenStore) else "",
            }
        )

    def _fleet(self) -> Observed:
        """Return the inputs that all engines share; the same value as long as nodes and catalog do not change."""
        catalog, nodes = self.catalog(), self._nodes.facts()
        if self._base is None or self._base[0] is not catalog or self._base_nodes is not nodes:
            self._base_nodes = nodes
            observed = Observed(
                nodes=nodes,
                node_classes=self._settings.node_classes,
                matrix=load_matrix(),
                toolchains=catalog.toolchains,
                platforms=catalog.platforms,
                unreadable_toolchains=tuple(one.found for one in catalog.problems),
                build_for_absent_gpus=self._settings.build_for_absent_gpus,
                model_keys=self._settings.signatures.model_keys,
            )
            self._base = (catalog, observed)
        return self._base[1]

    def _forbidden_plugin(self, engine: InferenceEngine) -> Refusal | None:
        allowed = self._settings.allowed_plugins
        for number, plugin in enumerate(engine.spec.build.plugins):
            if allowed is not None and plugin.sha256 not in allowed:
                found = f"spec.build.plugins[{number}] ({plugin.sha256[:12]}) is not on the administrator's list"
                return Refusal(
                    rule="PluginNotAllowed",
                    found=found,
                    wanted="ask the administrator to add its digest to allowedPlugins",
                )
        return None

    def _store(self, engine: InferenceEngine, namespace: str) -> ChosenStore | Refusal:
        spec = engine.spec.store or self._settings.store.default
        if spec is None:
            wanted = "set spec.store, or ask the administrator to set store.default"
            return Refusal(rule="NoStore", found="neither the engine nor the operator names a store", wanted=wanted)
        if spec.path is not None:
            wanted = "name a PersistentVolumeClaim, a bucket or a registry"
            return Refusal(rule="LocalStore", found="spec.store.path is for local mode only", wanted=wanted)
        is_default = engine.spec.store is None
        uri = store_uri(spec, namespace, shared=is_default and self._settings.store.shared)
        if spec.pvc is None:
            return ChosenStore(spec=spec, uri=uri)
        claim = self._cache.find(Address(VOLUME_CLAIM.kind, namespace, spec.pvc.claim_name))
        if claim is None:
            found = f"the PersistentVolumeClaim {spec.pvc.claim_name} does not exist in namespace {namespace}"
            return Refusal(rule="StoreMissing", found=found, wanted="create it, or name another in spec.store.pvc")
        modes = tuple((claim.document().get("spec") or {}).get("accessModes") or ())
        return ChosenStore(spec=spec, uri=uri, access_modes=modes)

    def _job(self, owner: str, job: StoredObject) -> JobFacts:
        return replace(read_job(job.document()), refused=self._explain(owner, job.uid))

    def _pod(self, owner: str, pod: StoredObject) -> PodFacts:
        return replace(read_pod(pod.document()), mount_failure=self._explain(owner, pod.uid))

    def _pods_of_job(self, owner: str, job: StoredObject) -> tuple[PodFacts, ...]:
        labelled = self._cache.labelled(job.address.namespace, JOB_NAME, job.address.name)
        pods = [self._pod(owner, one) for one in labelled if one.controller and one.controller.uid == job.uid]
        return tuple(sorted(pods, key=lambda pod: (pod.created_at, pod.name)))

    def _serving_pods(
        self, children: list[StoredObject], engine: Json, deployments: list[KnownDeployment]
    ) -> dict[str, tuple[PodFacts, ...]]:
        """Return the pods by target; those from before the engine are of an earlier one of the same name.

        A Deployment that was adopted is older than the engine, and its pods are the engine's.
        """
        made = engine["creationTimestamp"]
        since = {one.target: one.document["metadata"].get("creationTimestamp") or made for one in deployments}
        pods: dict[str, list[PodFacts]] = defaultdict(list)
        for one in children:
            target = one.labels.get(TARGET)
            if one.address.kind != POD.kind or not target or JOB_NAME in one.labels:
                continue
            pod = self._pod(engine["uid"], one)
            if pod.created_at >= min(made, since.get(target, made)):
                pods[target].append(pod)
        return {
            target: tuple(sorted(found, key=lambda pod: (pod.created_at, pod.name))) for target, found in pods.items()
        }

    def with_others(self, snapshot: EngineSnapshot, keys: Iterable[str]) -> EngineSnapshot:
        """Add the state of other engines in the namespace: their builds of these keys, and GPUs that a policy limits.

        One build is enough for both. The caller decides at once, so that no other pass gives the same GPUs away.
        """
        metadata = snapshot.document["metadata"]
        address = Address(INFERENCE_ENGINE.kind, metadata["namespace"], metadata["name"])
        snapshot = replace(snapshot, gpus=self._gpus.limit(address.namespace, without=address))
        lacking = sorted({key for key in keys if key not in snapshot.builds})
        found = [
            one for key in lacking for one in self._cache.labelled(metadata["namespace"], ENGINE_KEY, short_key(key))
        ]
        return replace(snapshot, builds={**_by_key(found, metadata["uid"]), **snapshot.builds}) if found else snapshot

    def promise(self, snapshot: EngineSnapshot, gpus: int) -> None:
        """Record how many GPUs an engine has from now on, if a policy limits them."""
        if snapshot.gpus is not None:
            metadata = snapshot.document["metadata"]
            self._gpus.promise(Address(INFERENCE_ENGINE.kind, metadata["namespace"], metadata["name"]), gpus)


def _by_key(objects: Iterable[StoredObject], uid: str) -> dict[str, KnownBuild]:
    """Return the builds among objects by their key; if a key has several, this engine's own."""
    builds: dict[str, KnownBuild] = {}
    for one in objects:
        build = _build(one, uid) if one.address.kind == ENGINE_BUILD.kind else None
        if build is not None and (build.key not in builds or build.is_owned):
            builds[build.key] = build
    return builds


def _limits(settings: JobSettings) -> JobLimits:
    return JobLimits(
        backoff_limit=settings.backoff_limit,
        ttl_seconds=int(settings.ttl_seconds),
        timeout_seconds=float(settings.timeout_seconds),
        resources=settings.resources,
    )


def _build(stored: StoredObject, uid: str) -> KnownBuild | None:
    document = stored.document()
    if "deletionTimestamp" in document["metadata"]:
        return None
    status = read_status(EngineBuildStatus, document, EngineBuildStatus())
    ready = find_condition(status.conditions, READY)
    scheduled = find_condition(status.conditions, SCHEDULED)
    waits = scheduled is not None and scheduled.status is ConditionStatus.FALSE
    request = (document.get("spec") or {}).get("request") or {}
    return KnownBuild(
        name=stored.address.name,
        uid=stored.uid,
        key=str(request.get("engineKey") or ""),
        target=str(document["spec"].get("target") or ""),
        phase=status.phase,
        owners=stored.owners,
        owner_documents=tuple(document["metadata"].get("ownerReferences") or ()),
        is_owned=any(owner.uid == uid for owner in stored.owners),
        version=str(document["metadata"].get("resourceVersion") or ""),
        spec=document["spec"],
        digest=status.result.engine_digest if status.result else None,
        failure=status.failure,
        node=status.node,
        reason=ready.reason if ready else "",
        message=ready.message if ready else "",
        waits_since=scheduled.last_transition_time if waits and scheduled is not None else "",
        finished_at=status.finished_at or "",
        latency_seconds=status.result.latency_seconds if status.result else {},
    )


def _pinned(status: EngineStatus, deployments: list[KnownDeployment], catalog: Catalog) -> dict[str, Toolchain]:
    """Return the toolchain of each target that is kept.

    A toolchain that is no longer in the catalog is kept for what runs with it. One that nothing runs with is dropped:
    an image that was corrected, or an invalid value that a user wrote.
    """
    offered = set(catalog.toolchains)
    run = {(one.target, engine.toolchain) for one in deployments for engine in (*one.notes.engines, *one.notes.served)}
    return {
        one.name: one.toolchain
        for one in status.targets
        if one.toolchain is not None and (one.toolchain in offered or (one.name, one.toolchain) in run)
    }


def _deployment(stored: StoredObject) -> KnownDeployment:
    document = stored.document()
    metadata, spec, status = document["metadata"], document["spec"], document.get("status") or {}
    replicas = spec.get("replicas", 1)
    return KnownDeployment(
        target=stored.labels.get(TARGET, ""),
        uid=stored.uid,
        document=document,
        notes=read_notes(document),
        replicas=int(replicas),
        ready_replicas=int(status.get("readyReplicas") or 0),
        template_labels=spec["template"]["metadata"].get("labels") or {},
        refused=next(
            (
                str(one.get("message") or "")
                for one in status.get("conditions") or ()
                if (one.get("type"), one.get("status")) == ("ReplicaFailure", "True")
            ),
            "",
        ),
        is_observed=int(status.get("observedGeneration") or 0) >= int(metadata.get("generation") or 0),
    )
