"""From an applied InferenceEngine to its first answer with images present and an empty store, stage by stage.

Usage: python -m benchmarks.operator_first_inference [--rounds 5]

Each round has a namespace of its own, and so an empty store. The operator's own time is the sum over its reactions:
from the moment at which a watch shows a fact (the InferenceEngine, the end of a Job) to the moment at which the API
server has answered the write that follows from it, by the audit log. All clocks are this machine's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
from benchmarks.measure import spread, write_record
from benchmarks.operator_cluster import AuditTail, Request
from onnx import TensorProto, helper
from tests.cluster.access import Cluster
from tests.cluster.engines import LINES, Document, Tenant, s3_secret
from tests.cluster.installation import ROOT, installed_operator, load_images, open_cluster

from enginesmith_contract.protos import inference_pb2 as pb

_WATCHED = ("inferenceengines", "jobs", "deployments", "pods", "services")
_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_PATIENCE_SECONDS = 180.0
_POLL_SECONDS = 0.05
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
]
_OWN = "operator: "
_COMPONENT = "app.kubernetes.io/component"

Moments = dict[str, float]


class _Watches:
    """Everything that a namespace shows, with the time at which it was shown first."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._seen: list[tuple[float, Document]] = []
        self._processes = []
        for kind in _WATCHED:
            command = ("kubectl", "-n", namespace, "get", kind, "--watch", '-o=jsonpath={@}{"\\n"}')
            known = {**os.environ, **cluster.environment}
            process = subprocess.Popen(command, env=known, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self._processes.append(process)
            threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._seen.append((time.time(), json.loads(line)))

    def first(self, kind: str, shows: Callable[[Document], object], **labels: str) -> float | None:
        """Return when an object of a kind with certain labels first showed something; None: it has not."""
        for at, document in list(self._seen):
            own = document["metadata"].get("labels") or {}
            if document["kind"] == kind and own.items() >= labels.items() and shows(document):
                return at
        return None

    def stop(self) -> None:
        """End the watches."""
        for process in self._processes:
            process.terminate()
            process.wait(10)


def _state(document: Document, container: str, state: str) -> object:
    """Return a state of a container from its pod's status; None: the container is not in this state."""
    status = document.get("status") or {}
    found = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return next((one["state"].get(state) for one in found if one["name"] == container), None)


def _condition(document: Document, kind: str) -> bool:
    conditions = (document.get("status") or {}).get("conditions") or ()
    return any(one["type"] == kind and one["status"] == "True" for one in conditions)


def _pod_moments(seen: _Watches, component: str, container: str) -> Iterator[tuple[str, float | None]]:
    labels = {_COMPONENT: component}
    running = seen.first("Pod", lambda one: _state(one, container, "running"), **labels)
    ended = seen.first("Pod", lambda one: _state(one, container, "terminated"), **labels)
    # A short step may end before kubelet reports that it runs.
    yield f"{container}: the pod starts", running or ended
    if component != "server":
        yield f"{container}: runs", ended
        yield f"{container}: the Job ends", seen.first("Job", lambda one: _condition(one, "Complete"), **labels)


def _serving_moments(seen: _Watches) -> Iterator[tuple[str, float | None]]:
    labels = {_COMPONENT: "server"}
    yield from _pod_moments(seen, "server", "pull")
    yield "pull: runs", seen.first("Pod", lambda one: _state(one, "pull", "terminated"), **labels)
    yield "serve: the container starts", seen.first("Pod", lambda one: _state(one, "server", "running"), **labels)
    yield "serve: loads, warms up, is found ready", seen.first("Pod", lambda one: _condition(one, "Ready"), **labels)


def _moments(seen: _Watches, requests: list[Request], answered_at: float) -> Moments:
    """Return the end of each stage, in order."""

    def written(resource: str, number: int = 0) -> float:
        found = [one for one in requests if one.resource == resource and not one.subresource and one.verb != "get"]
        return [one for one in found if one.code < 300][number].answered_at  # noqa: PLR2004 - an answer that is a success

    found: list[tuple[str, float | None]] = [
        ("applied", written("inferenceengines")),
        (f"{_OWN}the preparation's Job", written("jobs")),
        *_pod_moments(seen, "preparation", "prepare"),
        (f"{_OWN}the EngineBuild and its Job", written("jobs", 1)),
        *_pod_moments(seen, "build", "build"),
        (f"{_OWN}the Deployment", written("deployments")),
        *_serving_moments(seen),
        ("the Service answers", answered_at),
    ]
    return {name: at for name, at in found if at is not None}


def _stages(moments: Moments) -> dict[str, float]:
    """Return how long each stage took; 0 where a later stage ended earlier, because nothing waited for this stage."""
    stages: dict[str, float] = {}
    (_, last), *rest = moments.items()
    later = [at for _, at in rest]
    for index, (name, at) in enumerate(rest):
        overtaken = any(other < at for other in later[index + 1 :])
        stages[name] = 0.0 if overtaken else max(at - last, 0.0)
        last = last if overtaken else max(at, last)
    return stages


@contextmanager
def _namespace(cluster: Cluster) -> Iterator[str]:
    name = f"first-{uuid.uuid4().hex[:10]}"
    cluster.kubectl("create", "namespace", name)
    cluster.apply(s3_secret(cluster, name))
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


def _until_answered(tenant: Tenant, seen: _Watches, model: str, request: pb.ModelInferRequest) -> float:
    """Ask until there is an answer, and return when that was."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while seen.first("Service", lambda one: one["metadata"]["name"] == model) is None:
        assert time.monotonic() < give_up, tenant.described()
        time.sleep(_POLL_SECONDS)
    address = f"{tenant.get('service', model)['spec']['clusterIP']}:8001"
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        ask = channel.unary_unary(
            _METHOD,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        while time.monotonic() < give_up:
            try:
                ask(request, timeout=5)
            except grpc.RpcError:
                time.sleep(_POLL_SECONDS)
            else:
                return time.time()
    raise TimeoutError(tenant.described())


def _round(cluster: Cluster, name: str, spec: Mapping[str, Any], request: pb.ModelInferRequest) -> Moments:
    """Run once from an empty store to a response; return the times of the stages."""
    with _namespace(cluster) as namespace:
        tenant = Tenant(cluster=cluster, namespace=namespace, model=spec["model"])
        seen = _Watches(cluster, namespace)
        try:
            time.sleep(1)
            audit = AuditTail(cluster.audit_log, namespace)
            tenant.apply(name, [{"name": "cpu", "backend": "onnxruntime"}], **spec)
            answered_at = _until_answered(tenant, seen, name, request)
            tenant.until_ready(name)
            moments = _moments(seen, audit.read(), answered_at)
            ready = seen.first("InferenceEngine", lambda one: _condition(one, "Ready"))
            server = seen.first("Pod", lambda one: _condition(one, "Ready"), **{_COMPONENT: "server"})
        finally:
            seen.stop()
    assert ready is not None
    assert server is not None
    return moments | {"status": ready - server}


def _figures(rounds: list[Moments]) -> dict[str, object]:
    said = [one.pop("status") for one in rounds]
    stages = [_stages(one) for one in rounds]
    own = [sum(took for name, took in one.items() if name.startswith(_OWN)) for one in stages]
    total = [one["the Service answers"] - one["applied"] for one in rounds]
    return {
        "seconds from apply to the first inference": _rounded(spread(total)),
        "of which the operator's own": _rounded(spread(own)),
        "stages in seconds": {name: _rounded(spread([one[name] for one in stages])) for name in stages[0]},
        "seconds from the pod's Ready to the engine's in its status": _rounded(spread(said)),
    }


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(figure, 3) for name, figure in figures.items()}


def _upload(cluster: Cluster, file: Path, uri: str) -> dict[str, object]:
    upload = cluster.run(sys.executable, ROOT / "examples/cluster/upload.py", file, uri)
    assert upload.returncode == 0, upload.stderr
    options = {"endpoint": cluster.s3["AWS_ENDPOINT_URL"], "region": "us-east-1"}
    return {"uri": uri, "options": options, "secretRef": {"name": "s3"}}


def _tiny(folder: Path) -> Path:
    """Write a model of one addition."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y"))
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    graph = helper.make_graph([helper.make_node("Add", ["x", "one"], ["y"])], "tiny", [x], [y], [one])
    file = folder / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


def _request(model: str, shape: list[int]) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=shape)
    values = np.zeros(shape, np.float32).tobytes()
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[values])


def main() -> None:
    """Measure, print, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cluster = open_cluster()
    images = load_images(cluster)
    models = Path(subprocess.check_output([ROOT / "hack" / "fetch-models"], text=True).strip())
    with installed_operator(cluster, images), tempfile.TemporaryDirectory() as folder:
        classifier = _upload(cluster, models / "cls.onnx", "s3://models/ocr/cls.onnx")
        tiny = _upload(cluster, _tiny(Path(folder)), "s3://models/benchmarks/tiny.onnx")
        cases: dict[str, tuple[dict[str, Any], pb.ModelInferRequest]] = {
            "cls": ({"model": classifier, "profiles": LINES}, _request("cls", [1, 3, 48, 192])),
            "tiny": ({"model": tiny, "profiles": []}, _request("tiny", [1, 4])),
        }
        figures = {
            name: _figures([_round(cluster, name, spec, request) for _ in range(options.rounds)])
            for name, (spec, request) in cases.items()
        }
    write_record("operator_first_inference", {"rounds": options.rounds, **figures})


if __name__ == "__main__":
    main()
