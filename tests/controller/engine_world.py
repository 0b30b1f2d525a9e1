"""One InferenceEngine among the objects that a cluster would show of it: passes are made over it without a cluster.

What a pass decides is put into the store of seen objects, as the watches would; what Kubernetes and the pods would add
(a Job's end, a pod's last word, ready replicas) a test adds by name. The gatherer, the planner and the decisions are
the operator's own.
"""

import json
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import yaml
from tests.controller.gpu_nodes import gpu_node

from enginesmith_contract.preparation_job import PreparationReport
from enginesmith_operator.api.conditions import StatusCondition
from enginesmith_operator.api.engine_status import TargetStatus
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.inference_engine.decide import (
    EngineDecision,
    decide_engine,
    resolve_engine,
    wanted_keys,
)
from enginesmith_operator.controller.inference_engine.gather import Gatherer
from enginesmith_operator.controller.inference_engine.reconcile import read_engine
from enginesmith_operator.controller.inference_engine.snapshot import EngineSnapshot
from enginesmith_operator.controller.shared.cache import Address, ObjectCache
from enginesmith_operator.controller.shared.conditions import find_condition
from enginesmith_operator.controller.shared.gpu_use import GpuUse
from enginesmith_operator.controller.shared.policies import PolicyReader
from enginesmith_operator.controller.shared.settings import OperatorSettings
from enginesmith_operator.controller.shared.status_document import status_document
from enginesmith_operator.controller.watch.intake import JOB_NAME
from enginesmith_operator.controller.watch.nodes import NodeMemory
from enginesmith_operator.objects.labels import ENGINE, ENGINE_KEY, TARGET
from enginesmith_operator.planning.desired import preparation_key_of

__all__ = ["DIGEST", "EngineWorld"]

DIGEST = "ab" * 32
_ENGINE_DIGEST = "cd" * 32
_IMAGE = f"registry.example/runtime@sha256:{'a1' * 32}"
_CATALOG = Address("ConfigMap", "operators", "toolchains")
_TOOLCHAINS = {
    "ort": {"backend": "onnxruntime", "version": "1.32.0", "image": _IMAGE},
    "trt": {"backend": "tensorrt", "version": "10.13.3.9", "cuda": "12.9", "image": _IMAGE},
}
_ELSEWHERE = "1 node(s) didn't match Pod's node affinity/selector"
_SETTINGS = {"store": {"default": {"s3": {"bucket": "engines"}}}}


class EngineWorld:
    """One InferenceEngine `ocr` in the namespace `vision`; keywords are fields of its spec."""

    def __init__(self, *, settings: dict[str, Any] | None = None, name: str = "ocr", **spec: object) -> None:
        self.now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
        self.settings = OperatorSettings.model_validate(_SETTINGS if settings is None else settings)
        self.cache = ObjectCache(indexed_labels=(ENGINE, ENGINE_KEY, JOB_NAME))
        self.nodes = NodeMemory(self.settings.labels.merged(), grace_seconds=120.0, clock=self._seconds)
        self.explained: dict[str, str] = {}
        self.gpus = GpuUse(self.cache, PolicyReader(self.cache))
        self._gatherer = Gatherer(
            self.cache,
            self.nodes,
            self.settings,
            _CATALOG,
            lambda: self.now,
            explain=lambda _owner, uid: self.explained.get(uid, ""),
            gpus=self.gpus,
        )
        self._versions = count(1)
        self.catalog(_TOOLCHAINS)
        self.nodes.observe(gpu_node("gpu-1"))
        self.engine = self.make_engine(name, **spec)

    def _write(self, desired: Json) -> None:
        """Show what a write made: what others wrote into the object stays."""
        metadata = desired["metadata"]
        known = self.cache.find(Address(desired["kind"], metadata["namespace"], metadata["name"]))
        live = known.document() if known is not None else {}
        kept = {"uid": live["metadata"]["uid"]} if live else {}
        self.put({**live, **desired, "metadata": {**metadata, **kept}})

    def _seconds(self) -> float:
        return self.now.timestamp()

    def make_engine(self, name: str, **spec: object) -> Json:
        """Put an InferenceEngine into the store and return it."""
        plain = {
            "model": {"uri": "s3://models/ocr.onnx"},
            "profiles": [{"name": "default", "inputs": {"x": {"min": [1, 4], "opt": [4, 4], "max": [8, 4]}}}],
            "targets": [{"name": "l4", "gpu": {"product": "NVIDIA-L4"}}],
        }
        metadata = {
            "name": name,
            "namespace": "vision",
            "uid": f"uid-{name}",
            "generation": 1,
            "creationTimestamp": "2026-11-23T12:00:00Z",
        }
        head = {"apiVersion": "enginesmith.io/v1alpha1", "kind": "InferenceEngine"}
        return self.put({**head, "metadata": metadata, "spec": plain | spec})

    def catalog(self, toolchains: dict[str, dict[str, Any]]) -> None:
        """Replace the toolchain catalog."""
        data = {name: yaml.safe_dump(one) for name, one in toolchains.items()}
        metadata = {"name": _CATALOG.name, "namespace": _CATALOG.namespace, "uid": "catalog"}
        self.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    def put(self, document: Json) -> Json:
        """Show an object to the store, as newer than all before."""
        shown = deepcopy(document)
        metadata = shown["metadata"]
        metadata.setdefault("uid", f"uid-{shown['kind']}-{metadata['name']}")
        metadata["resourceVersion"] = str(next(self._versions))
        self.cache.put(shown)
        return shown

    def change_spec(self, **spec: object) -> None:
        """Change fields of the spec, as a user would."""
        self.engine["spec"] |= spec
        self.engine["metadata"]["generation"] += 1

    def look(self) -> EngineDecision:
        """Return what a pass would do now."""
        engine = read_engine(self.engine)
        assert not isinstance(engine, Exception)
        snapshot = self._gatherer.gather(self.engine, engine)
        resolution = resolve_engine(snapshot)
        snapshot = self._gatherer.with_others(snapshot, wanted_keys(resolution))
        return decide_engine(snapshot, resolution)

    def snapshot(self) -> EngineSnapshot:
        """Return what a pass would look at."""
        engine = read_engine(self.engine)
        assert not isinstance(engine, Exception)
        return self._gatherer.gather(self.engine, engine)

    def step(self) -> EngineDecision:
        """Make a pass, and show the store what came of it."""
        decision = self.look()
        for deletion in decision.deletes:
            assert self.cache.remove(deletion.address, deletion.uid) is not None
        for document in (*decision.creates, *decision.applies):
            self._write(document)
        self.engine["status"] = status_document(decision.status)
        return decision

    def settle(self) -> EngineDecision:
        """Make passes until one has nothing more to do, and return that one."""
        for _ in range(5):
            decision = self.step()
            if not (decision.creates or decision.applies or decision.deletes or decision.events):
                return decision
        raise AssertionError("it never came to rest")

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def of_kind(self, kind: str) -> list[Json]:
        """Return the objects of a kind that are there, by name."""
        found = [one.document() for one in self.cache.of_kind(kind)]
        return sorted(found, key=lambda one: str(one["metadata"]["name"]))

    def end_preparation(self, *, job_ends: bool = True, **report: Any) -> None:
        """Let the preparation's pod, and its Job, end with this report; by default it succeeds."""
        jobs = [one for one in self.of_kind("Job") if "-prep-" in one["metadata"]["name"]]
        (job,) = [one for one in jobs if not one.get("status")] or jobs
        engine = read_engine(self.engine)
        assert not isinstance(engine, Exception)
        told = report
        if "failure" not in report:
            snapshot = self._gatherer.gather(self.engine, engine)
            wanted = resolve_engine(snapshot).engine
            calibrated = wanted.spec.precision.calibration is not None
            digests = {"source_digest": DIGEST} | ({"calibration_digest": DIGEST} if calibrated else {})
            key = preparation_key_of(wanted.spec, snapshot.observed.model_copy(update=digests))
            told = {"preparation_key": key, **digests} | report
        word = PreparationReport(**told).to_json().decode()
        self._end_job(job, "prepare", word, failed="failure" in report, job_ends=job_ends)

    def _stamp(self) -> str:
        return self.now.isoformat().replace("+00:00", "Z")

    def fail_builds(self, reason: str, message: str, *, retry: bool = False) -> None:
        """Let every build fail that has not ended."""
        for build in self.of_kind("EngineBuild"):
            if (build.get("status") or {}).get("phase"):
                continue
            failure = {"reason": reason, "message": message, "retry": retry}
            ready = {"type": "Ready", "status": "False", "lastTransitionTime": self._stamp()}
            ready |= {"reason": reason, "message": message}
            told = {"phase": "Failed", "failure": failure, "conditions": [ready], "finishedAt": self._stamp()}
            self.put({**build, "status": told})

    def end_builds(self, *, latency_seconds: float | None = None) -> None:
        """Let every build succeed that has not ended."""
        for build in self.of_kind("EngineBuild"):
            if (build.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
                continue
            result: Json = {"engineDigest": _ENGINE_DIGEST}
            result |= {"latencySeconds": {"default": latency_seconds}} if latency_seconds is not None else {}
            build["status"] = {"phase": "Succeeded", "result": result, "finishedAt": self._stamp()}
            self.put(build)

    def hold_builds(self) -> None:
        """Let every build that has not ended find no GPU."""
        for build in self.of_kind("EngineBuild"):
            if build.get("status"):
                continue
            told = {"Ready": "WaitingForGPU", "Scheduled": "Unschedulable"}
            build["status"] = {
                "phase": "Pending",
                "conditions": [
                    {"type": kind, "status": "False", "reason": reason, "lastTransitionTime": self._stamp()}
                    for kind, reason in told.items()
                ],
            }
            self.put(build)

    def start_pods(
        self,
        *,
        ready: bool = True,
        exit_code: int = 0,
        message: dict[str, Any] | None = None,
        target: str | None = None,
        only: int | None = None,
    ) -> None:
        """Let every Deployment, or one target's, have its pods, or `only` so many: ready, or ended in the init step."""
        for deployment in self.of_kind("Deployment"):
            if target not in {None, deployment["metadata"]["labels"][TARGET]}:
                continue
            name, wanted = deployment["metadata"]["name"], deployment["spec"].get("replicas", 1)
            self._drop_pods(deployment["metadata"]["labels"][TARGET])
            labels = deployment["spec"]["template"]["metadata"]["labels"]
            count = wanted if only is None else only
            for number in range(count):
                self._pod(f"{name}-{number}", labels, ready=ready, exit_code=exit_code, message=message)
            deployment["status"] = {"readyReplicas": count if ready else 0, "observedGeneration": 1}
            self.put(deployment)

    def pend_pods(self, target: str, *, beside: int = 0, beside_old: bool = False) -> None:
        """Let a target's pods find no node, but for so many that are there, or beside those of an older template."""
        deployment = self._deployment_of(target)
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        scheduled = {
            "type": "PodScheduled",
            "status": "False",
            "message": f"0/2 nodes are available: 1 Insufficient nvidia.com/gpu, {_ELSEWHERE}.",
            "lastTransitionTime": self._stamp(),
        }
        for number in range(beside, deployment["spec"].get("replicas", 1)):
            name = f"{deployment['metadata']['name']}-{'new-' if beside_old else ''}{number}"
            told = {"conditions": [scheduled]}
            self._pod(name, labels, ready=False, exit_code=0, message=None, status=told, node="")
        self.put(deployment | {"status": {"readyReplicas": int(beside_old) or beside, "observedGeneration": 1}})

    def _deployment_of(self, target: str) -> Json:
        found = self.of_kind("Deployment")
        return next(one for one in found if one["metadata"]["labels"][TARGET] == target)

    def crash_pods(
        self,
        target: str,
        exit_code: int,
        *,
        container: str = "server",
        reason: str = "Error",
        message: dict[str, Any] | None = None,
        restarts: int = 3,
    ) -> None:
        """Let a target's pods of the newest template fail again and again, as kubelet restarts them."""
        deployment = self._deployment_of(target)
        self._drop_pods(target)
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        ended = {"exitCode": exit_code, "reason": reason, "finishedAt": self._stamp()}
        ended |= {"message": json.dumps(message)} if message is not None else {}
        waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
        told = {"name": container, "restartCount": restarts, "state": waiting, "lastState": {"terminated": ended}}
        kind = "initContainerStatuses" if container == "pull" else "containerStatuses"
        for number in range(deployment["spec"].get("replicas", 1)):
            name = f"{deployment['metadata']['name']}-{number}"
            self._pod(name, labels, ready=False, exit_code=0, message=None, status={kind: [told]})
        deployment["status"] = {"readyReplicas": 0, "observedGeneration": 1}
        self.put(deployment)

    def drop_pods(self, target: str) -> None:
        """Delete a target's pods."""
        self._drop_pods(target)

    def condition(self, kind: str) -> StatusCondition:
        """Return a condition of the status that a pass would write now."""
        found = find_condition(self.look().status.conditions, kind)
        assert found is not None
        return found

    def target(self, name: str) -> TargetStatus:
        """Return a target of the status that a pass would write now."""
        return next(one for one in self.look().status.targets if one.name == name)

    def serve(self) -> None:
        """Go through everything until the engine serves."""
        self.step()
        self.end_preparation()
        self.step()
        self.end_builds()
        self.step()
        self.start_pods()
        self.settle()

    def job_pod(self, job: Json, statuses: list[Json], **fields: object) -> Json:
        """Show a pod of a Job with these statuses of its containers; `fields` are of its status."""
        name = job["metadata"]["name"]
        owner = {"kind": "Job", "name": name, "uid": job["metadata"]["uid"], "controller": True}
        metadata = {
            "name": f"{name}-1",
            "namespace": "vision",
            "uid": f"pod-{name}-{next(self._versions)}",
            "creationTimestamp": self._stamp(),
            "labels": {**job["metadata"]["labels"], JOB_NAME: name},
            "ownerReferences": [owner],
        }
        status = {"phase": "Running", "containerStatuses": statuses} | fields
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": "cpu-1"}}
        return self.put({**pod, "status": status})

    def _end_job(self, job: Json, container: str, message: str, *, failed: bool, job_ends: bool) -> None:
        condition = {"type": "Failed" if failed else "Complete", "status": "True", "reason": "PodFailurePolicy"}
        stamp = self._stamp()
        if job_ends:
            job["status"] = {"conditions": [{**condition, "lastTransitionTime": stamp}], "failed": int(failed)}
            self.put(job)
        ending = {"exitCode": 12 if failed else 0, "message": message, "startedAt": stamp, "finishedAt": stamp}
        self.job_pod(
            job, [{"name": container, "state": {"terminated": ending}}], phase="Failed" if failed else "Succeeded"
        )

    def drop_preparation_pods(self) -> None:
        """Delete the pods of every preparation, and leave their Jobs."""
        for one in self.cache.of_kind("Pod"):
            if "-prep-" in one.labels.get(JOB_NAME, ""):
                self.cache.remove(one.address, one.uid)

    def _drop_pods(self, target: str) -> None:
        for one in self.cache.of_kind("Pod"):
            if one.labels.get(TARGET) == target and JOB_NAME not in one.labels:
                self.cache.remove(one.address, one.uid)

    def _pod(
        self,
        name: str,
        labels: dict[str, str],
        *,
        ready: bool,
        exit_code: int,
        message: dict[str, Any] | None,
        status: dict[str, Any] | None = None,
        node: str = "gpu-1",
    ) -> None:
        status = {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}], **(status or {})}
        if exit_code:
            ended = {"exitCode": exit_code, "message": json.dumps(message or {}), "finishedAt": self._stamp()}
            status["initContainerStatuses"] = [{"name": "pull", "state": {"terminated": ended}}]
        self.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": "vision",
                    "uid": f"pod-{name}-{next(self._versions)}",
                    "creationTimestamp": "2026-11-23T12:00:00Z",
                    "labels": dict(labels),
                },
                "spec": {"nodeName": node},
                "status": status,
            }
        )
