"""An operator that is killed at every one of its writes leaves the same objects as one that is not."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper, save
from pydantic import JsonValue
from s3fs import S3FileSystem
from tests.cluster.access import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_operator", "hardware")]

_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = Path(__file__).with_name("operator_process.py")
_NAMESPACE = "killed-operator"
_KINDS = "inferenceengines,enginebuilds,jobs,deployments,services,poddisruptionbudgets"
_MOST_STARTS = 100
_QUIET_SECONDS = 4.0
_PATIENCE_SECONDS = 240.0
# What differs between two runs of one thing: identities, times, addresses, and how often something was written.
_VOLATILE = frozenset(
    {
        "uid",
        "resourceVersion",
        "generation",
        "observedGeneration",
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
        "message",
        "clusterIP",
        "clusterIPs",
        "enginesmith.io/applied-hash",
        "deployment.kubernetes.io/revision",
        "batch.kubernetes.io/controller-uid",
        "controller-uid",
    }
)


def _model(path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def _documents(cluster: Cluster, images: dict[str, str]) -> list[dict[str, Any]]:
    account = cluster.s3
    secret = {name: account[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")}
    toolchain = {"backend": "onnxruntime", "version": _onnxruntime_version(), "image": images["enginesmith/runtime"]}
    engine = {
        "model": {"uri": f"s3://engines/{_NAMESPACE}/model.onnx", "secretRef": {"name": "s3"}},
        "profiles": [{"name": "default", "inputs": {"x": {"min": [1, 4], "opt": [4, 4], "max": [8, 4]}}}],
        "targets": [{"name": "cpu", "backend": "onnxruntime", "replicas": 2}],
        "podTemplate": {"nodeSelector": {"kubernetes.io/hostname": "cpu"}},
    }
    head = {"namespace": _NAMESPACE}
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3", **head}, "stringData": secret},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "enginesmith-toolchains", **head},
            "data": {"ort": yaml.safe_dump(toolchain)},
        },
        {
            "apiVersion": "enginesmith.io/v1alpha1",
            "kind": "InferenceEngine",
            "metadata": {"name": "small", **head},
            "spec": engine,
        },
    ]


def _onnxruntime_version() -> str:
    lines = (_ROOT / "requirements" / "image-runtime.txt").read_text().splitlines()
    return next(line.split("==")[1].split()[0] for line in lines if line.startswith("onnxruntime=="))


@pytest.fixture
def world(cluster: Cluster, images: dict[str, str], tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Make the same small world anew: an empty store, a model, a catalog and one InferenceEngine."""
    account = cluster.s3
    files = S3FileSystem(
        key=account["AWS_ACCESS_KEY_ID"],
        secret=account["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=account["AWS_ENDPOINT_URL"],
    )
    _model(tmp_path / "model.onnx")

    def clean() -> None:
        cluster.kubectl("delete", "namespace", _NAMESPACE, "--ignore-not-found", "--wait=true")
        files.invalidate_cache()
        if files.exists(f"engines/{_NAMESPACE}"):
            files.rm(f"engines/{_NAMESPACE}", recursive=True)

    def make() -> None:
        clean()
        files.put(str(tmp_path / "model.onnx"), f"engines/{_NAMESPACE}/model.onnx")
        cluster.kubectl("create", "namespace", _NAMESPACE)
        cluster.apply(*_documents(cluster, images))

    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(_ROOT / "crds"))
    yield make
    clean()


@contextmanager
def _operator(cluster: Cluster, folder: Path, number: int, fault: str) -> Iterator[subprocess.Popen[str]]:
    """Start an operator; a Lease of its own for each, since a killed one would keep it for 15 seconds."""
    store = {"bucket": "engines", "prefix": f"{_NAMESPACE}/store", "region": "us-east-1", "secretRef": {"name": "s3"}}
    store["endpoint"] = cluster.s3["AWS_ENDPOINT_URL"]
    settings = {"store": {"default": {"s3": store}}, "lease": {"name": f"operator-{number}"}, "healthPort": 0}
    config = folder / "operator.yaml"
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, str(_PROGRAM), str(config), _NAMESPACE, f"operator-{number}", fault]
    variables = {**os.environ, **cluster.environment}
    with (folder / f"operator-{number}.log").open("w") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _is_ready(cluster: Cluster) -> bool:
    found: dict[str, Any] = cluster.get("inferenceengine", "small", "-n", _NAMESPACE)
    conditions = {one["type"]: one["status"] for one in (found.get("status") or {}).get("conditions", ())}
    return conditions.get("Ready") == "True"


def _run_to_the_end(cluster: Cluster, folder: Path, fault_of: Callable[[int], str]) -> int:
    """Start operators, one after another as each ends, until nothing is left to write; return how many."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    for number in range(1, _MOST_STARTS):
        with _operator(cluster, folder, number, fault_of(number)) as process:
            quiet_since = time.monotonic()
            while process.poll() is None:
                assert time.monotonic() < give_up, (folder / f"operator-{number}.log").read_text()
                if not _is_ready(cluster):
                    quiet_since = time.monotonic()
                elif time.monotonic() - quiet_since > _QUIET_SECONDS:
                    return number
                time.sleep(0.3)
            assert process.returncode == -9, (folder / f"operator-{number}.log").read_text()
    pytest.fail("the operator never came to an end")


def _dump(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = cluster.get(_KINDS, "-n", _NAMESPACE)
    return {f"{one['kind']}/{one['metadata']['name']}": _normal(one) for one in found["items"]}


def _normal(document: dict[str, Any]) -> JsonValue:
    kept = dict(document)
    if not document["apiVersion"].startswith("enginesmith.io/"):
        # Written by Kubernetes' own controllers.
        kept.pop("status", None)
    return _plain(kept)


def _plain(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if key not in _VOLATILE}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _events(cluster: Cluster) -> Counter[tuple[str, str, str]]:
    found: dict[str, Any] = cluster.get("events", "-n", _NAMESPACE)
    return Counter(
        (one["involvedObject"]["name"], one["reason"], one["message"])
        for one in found["items"]
        if one.get("reportingComponent") == "enginesmith-operator"
    )


def _kill_at_every_write(number: int) -> str:
    return "after:1" if number % 2 else "before:2"


def test_an_operator_that_is_killed_at_every_write_leaves_what_an_undisturbed_one_does(
    cluster: Cluster, world: Callable[[], None], tmp_path: Path
) -> None:
    world()
    assert _run_to_the_end(cluster, tmp_path, lambda _: "never:0") == 1
    wanted = _dump(cluster)
    world()
    starts = _run_to_the_end(cluster, tmp_path, _kill_at_every_write)
    assert starts > len(wanted), "it was not killed at every write"
    found = _dump(cluster)
    assert json.dumps(found, indent=1, sort_keys=True) == json.dumps(wanted, indent=1, sort_keys=True)
    assert [event for event, times in _events(cluster).items() if times > 1] == []
