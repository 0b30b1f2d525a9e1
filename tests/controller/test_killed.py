"""An operator that is killed before and after every one of its writes leaves what an undisturbed one does."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import JsonValue
from tests.cluster.access import Cluster
from tests.cluster.small_model import save_small_model

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("no_operator")]

_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = Path(__file__).with_name("operator_process.py")
_NAMESPACE = "killed-operator"
# The chart that other tests install refuses a build in another folder of its own bucket.
_BUCKET = "killed-operator"
_KINDS = "inferenceengines,enginebuilds,jobs,deployments,services,poddisruptionbudgets,pods"
# Of objects that have not changed. Not seconds: a machine that stands still for some is no operator at rest.
_QUIET_LOOKS = 6
_PATIENCE_SECONDS = 900.0
# What differs between two runs of one thing: identities, times, addresses, and how often something was written.
_VOLATILE = frozenset(
    {
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "managedFields",
        "lastTransitionTime",
        "startedAt",
        "finishedAt",
        "resolvedAt",
        "since",
        "durationSeconds",
        "buildSeconds",
        "latencySeconds",
        "clusterIP",
        "clusterIPs",
        "enginesmith.io/applied-hash",
        "deployment.kubernetes.io/revision",
        "batch.kubernetes.io/controller-uid",
        "controller-uid",
    }
)
_DURATION = re.compile(r"\d+ s\b")


def _engine(largest: int) -> dict[str, Any]:
    """An InferenceEngine for batches up to a size: another size is another model to prepare, build and roll out."""
    return {
        "apiVersion": "enginesmith.io/v1alpha1",
        "kind": "InferenceEngine",
        "metadata": {"name": "small", "namespace": _NAMESPACE},
        "spec": {
            "model": {"uri": f"s3://engines/{_NAMESPACE}/model.onnx", "secretRef": {"name": "s3"}},
            "profiles": [{"name": "default", "inputs": {"x": {"min": [1, 4], "opt": [4, 4], "max": [largest, 4]}}}],
            "targets": [{"name": "cpu", "backend": "onnxruntime", "replicas": 2}],
            "serving": {"drainDelay": "0s"},
            "podTemplate": {"nodeSelector": {"kubernetes.io/hostname": "cpu"}},
        },
    }


def _surroundings(cluster: Cluster, images: dict[str, str]) -> list[dict[str, Any]]:
    account = cluster.s3
    secret = {name: account[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")}
    toolchain = {"backend": "onnxruntime", "version": _onnxruntime_version(), "image": images["enginesmith/runtime"]}
    head = {"namespace": _NAMESPACE}
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3", **head}, "stringData": secret},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "enginesmith-toolchains", **head},
            "data": {"ort": yaml.safe_dump(toolchain)},
        },
    ]


def _onnxruntime_version() -> str:
    lines = (_ROOT / "requirements" / "image-runtime.txt").read_text().splitlines()
    return next(line.split("==")[1].split()[0] for line in lines if line.startswith("onnxruntime=="))


@pytest.fixture
def world(cluster: Cluster, images: dict[str, str], tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Make the same small world again: an empty store, a model and a catalog."""
    files = cluster.files()
    save_small_model(tmp_path / "model.onnx")

    def clean() -> None:
        cluster.kubectl("delete", "namespace", _NAMESPACE, "--ignore-not-found", "--wait=true")
        files.invalidate_cache()
        for folder in (f"engines/{_NAMESPACE}", _BUCKET):
            if files.exists(folder):
                files.rm(folder, recursive=True)

    def make() -> None:
        clean()
        files.mkdir(_BUCKET)
        files.put(str(tmp_path / "model.onnx"), f"engines/{_NAMESPACE}/model.onnx")
        cluster.kubectl("create", "namespace", _NAMESPACE)
        cluster.apply(*_surroundings(cluster, images))

    cluster.define_kinds()
    yield make
    clean()


@dataclass(frozen=True, kw_only=True)
class _Life:
    """What one way through an InferenceEngine's life left.

    Attributes:
        objects: as they were each time that all was quiet.
        events: how often each was said.
        missed_probes: how often kubelet said that a server did not answer.
        writes: verb, kind and name by what became of them.
    """

    objects: list[dict[str, JsonValue]]
    events: Counter[tuple[str, str, str]]
    missed_probes: int
    writes: dict[str, set[str]]


@contextmanager
def _operators(cluster: Cluster, folder: Path, kills: str) -> Iterator[subprocess.Popen[str]]:
    store = {"bucket": _BUCKET, "region": "us-east-1", "secretRef": {"name": "s3"}}
    store["endpoint"] = cluster.s3["AWS_ENDPOINT_URL"]
    config = folder / "operator.yaml"
    # With one worker one write at a time is on its way: none slips through beside one that an operator dies of.
    config.write_text(yaml.safe_dump({"store": {"default": {"s3": store}}, "healthPort": 0, "workers": 1}))
    command = [sys.executable, str(_PROGRAM), str(config), _NAMESPACE, kills]
    variables = {**os.environ, **cluster.environment}
    with (folder / f"{kills}.writes").open("w") as writes, (folder / f"{kills}.log").open("w") as log:
        process = subprocess.Popen(command, env=variables, stdout=writes, stderr=log, text=True, start_new_session=True)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _live(cluster: Cluster, folder: Path, kills: str) -> _Life:
    """Let an engine become Ready, change, become Ready again and go, with operators that are killed or not."""
    found = []
    with _operators(cluster, folder, kills) as process:
        for largest in (8, 16):
            cluster.apply(_engine(largest))
            found.append(_until_quiet(cluster, process, folder / f"{kills}.log"))
        events, missed = _events(cluster), _missed_probes(cluster)
        before = _writes(folder / f"{kills}.writes")
        cluster.kubectl("-n", _NAMESPACE, "delete", "inferenceengine", "small")
        cluster.kubectl(
            "-n", _NAMESPACE, "wait", "pods,services,enginebuilds", "--all", "--for=delete", "--timeout=300s"
        )
        assert _writes(folder / f"{kills}.writes") == before, "it wrote while the garbage collector deleted"
    return _Life(objects=found, events=events, missed_probes=missed, writes=before)


def _until_quiet(cluster: Cluster, process: subprocess.Popen[str], log: Path) -> dict[str, JsonValue]:
    """Wait until the engine is up to date, no pod is ending and nothing is written any more; return all objects."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    versions: list[str] = []
    looks = 0
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up, log.read_text()
        items: list[dict[str, Any]] = cluster.get(_KINDS, "-n", _NAMESPACE)["items"]
        found = [one["metadata"]["resourceVersion"] for one in items]
        looks = looks + 1 if found == versions and _is_done(items) else 0
        versions = found
        if looks > _QUIET_LOOKS:
            return {f"{one['kind']}/{one['metadata']['name']}": _normal(one) for one in items if one["kind"] != "Pod"}
        time.sleep(0.5)


def _is_done(items: list[dict[str, Any]]) -> bool:
    engine = next(one for one in items if one["kind"] == "InferenceEngine")
    status = engine.get("status") or {}
    # While the next engine is prepared and built, the one before keeps the object Ready.
    met = {one["type"] for one in status.get("conditions", ()) if one["status"] == "True"}
    is_current = status.get("observedGeneration") == engine["metadata"]["generation"]
    are_whole = all(
        one["status"].get("readyReplicas") == one["status"].get("replicas") == one["spec"]["replicas"]
        for one in items
        if one["kind"] == "Deployment"
    )
    return (
        {"Ready", "UpToDate"} <= met
        and is_current
        and are_whole
        and not any("deletionTimestamp" in one["metadata"] for one in items)
    )


def _normal(document: dict[str, Any]) -> JsonValue:
    kept = dict(document)
    if not document["apiVersion"].startswith("enginesmith.io/"):
        # Written by Kubernetes' own controllers.
        kept.pop("status", None)
    return _plain(kept)


def _plain(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if key not in _VOLATILE}
    if isinstance(value, str):
        return _DURATION.sub("N s", value)
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _events(cluster: Cluster) -> Counter[tuple[str, str, str]]:
    found: dict[str, Any] = cluster.get("events", "-n", _NAMESPACE)
    return Counter(
        (one["involvedObject"]["name"], one["reason"], one["message"])
        for one in found["items"]
        if one.get("reportingComponent") == "enginesmith-operator"
    )


def _missed_probes(cluster: Cluster) -> int:
    found: dict[str, Any] = cluster.get("events", "-n", _NAMESPACE, "--field-selector=reason=Unhealthy")
    return sum(one.get("count") or 1 for one in found["items"])


def _writes(path: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"done": set(), "killed-before": set(), "killed-after": set()}
    for line in path.read_text().splitlines():
        outcome, _, write = line.partition(" ")
        # An event's name is a hash of its object's uid, among others.
        found.setdefault(outcome, set()).add(write if " Event " not in write else "create Event")
    return found


def test_an_operator_that_is_killed_before_and_after_every_write_leaves_what_an_undisturbed_one_does(
    cluster: Cluster, world: Callable[[], None], tmp_path: Path
) -> None:
    world()
    undisturbed = _live(cluster, tmp_path, "never")
    world()
    killed = _live(cluster, tmp_path, "every")
    assert undisturbed.writes["done"] == killed.writes["killed-before"] == killed.writes["killed-after"]
    assert json.dumps(killed.objects, indent=1, sort_keys=True) == json.dumps(
        undisturbed.objects, indent=1, sort_keys=True
    )
    # A server that misses a probe on a busy machine causes one more event when it is ready again.
    missed = sum(life.missed_probes for life in (undisturbed, killed))
    assert [event for event, times in killed.events.items() if times > 1 + missed] == []
