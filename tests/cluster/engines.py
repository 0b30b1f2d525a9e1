"""A namespace that serves engines: documents to apply, and what their statuses say."""

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.cluster.access import Cluster

__all__ = ["LINES", "Document", "Tenant", "model_at", "new_namespace", "new_tenant", "s3_secret", "upload_classifier"]

Document = dict[str, Any]
Found = TypeVar("Found")

LINES = [
    {"name": "line-start", "inputs": {"x": {"min": [1, 3, 48, 192], "opt": [4, 3, 48, 192], "max": [16, 3, 48, 192]}}}
]
"""The profile of the text direction classifier."""

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 300.0
"""Several times what anything takes where the processors are shared with other tests."""
_FETCH_MODELS = Path(__file__).resolve().parents[2] / "hack/fetch-models"


def s3_secret(cluster: Cluster, namespace: str) -> Document:
    """Return the Secret by which pods of a namespace reach the cluster's S3 server."""
    account = {name: cluster.s3[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s3", "namespace": namespace},
        "stringData": account,
    }


def upload_classifier(cluster: Cluster, models: Path) -> Document:
    """Put the text direction classifier into a bucket of the S3 server; return it as `spec.model`."""
    uri = "s3://models/ocr/cls.onnx"
    cluster.upload(models / "cls.onnx", uri)
    return model_at(cluster, uri)


def model_at(cluster: Cluster, uri: str) -> Document:
    """Return a model in the S3 server as `spec.model` of a namespace that can reach it."""
    options = {"endpoint": cluster.s3["AWS_ENDPOINT_URL"], "region": "us-east-1"}
    return {"uri": uri, "options": options, "secretRef": {"name": "s3"}}


@contextmanager
def new_namespace(cluster: Cluster) -> Iterator[str]:
    """Have a namespace that nobody else has."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    cluster.kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


@contextmanager
def new_tenant(cluster: Cluster, namespace: str, model: Document | None = None) -> Iterator["Tenant"]:
    """Let a namespace reach the S3 server; its engines are gone afterwards.

    Args:
        cluster: that has the namespace.
        namespace: to be used.
        model: what `upload_classifier` returned; None: uploads it.
    """
    if model is None:
        folder = subprocess.check_output([_FETCH_MODELS], text=True).strip()
        model = upload_classifier(cluster, Path(folder))
    cluster.apply(s3_secret(cluster, namespace))
    try:
        yield Tenant(cluster=cluster, namespace=namespace, model=model)
    finally:
        cluster.kubectl(
            "-n", namespace, "delete", "inferenceengines", "--all", "--cascade=foreground", "--timeout=300s"
        )


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """One namespace of the development cluster with an account for the S3 server.

    Attributes:
        model: that its engines are of, as `spec.model`.
        profiles: of that model; by default of the text direction classifier.
    """

    cluster: Cluster
    namespace: str
    model: Document
    profiles: tuple[Document, ...] = tuple(LINES)

    def document(self, name: str, targets: list[Document], **spec: object) -> Document:
        """Return an InferenceEngine of the model; `spec` adds to its specification or replaces parts of it."""
        return {
            "apiVersion": "enginesmith.io/v1alpha1",
            "kind": "InferenceEngine",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"model": self.model, "profiles": list(self.profiles), "targets": targets} | spec,
        }

    def apply(self, name: str, targets: list[Document], **spec: object) -> None:
        """Apply such a document as its owner would."""
        self.cluster.apply(self.document(name, targets, **spec))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in the namespace and return what it prints."""
        return self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def get(self, *arguments: str) -> Document:
        """Return an object of the namespace, or a list of them."""
        return self.cluster.get("-n", self.namespace, *arguments)

    def condition(self, name: str, kind: str, *, of: str = "inferenceengine") -> Document:
        """Return a condition of an object's status; empty while it has none of this type."""
        conditions = (self.get(of, name).get("status") or {}).get("conditions") or ()
        return next((dict(one) for one in conditions if one["type"] == kind), {})

    def target(self, name: str, target: str) -> Document:
        """Return what the status of an InferenceEngine says of a target; empty while it says nothing."""
        targets = (self.get("inferenceengine", name).get("status") or {}).get("targets") or ()
        return next((dict(one) for one in targets if one["name"] == target), {})

    def until(self, condition: Callable[[], Found | None], what: str, *, seconds: float = _PATIENCE_SECONDS) -> Found:
        """Wait until something holds, and return it; where it never does, fail with all that the namespace says."""
        give_up = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > give_up:
                pytest.fail(f"never: {what}\n{self.described()}")
            time.sleep(_POLL_SECONDS)
        return found

    def until_ready(self, name: str, *, seconds: float = _PATIENCE_SECONDS) -> None:
        """Wait until an InferenceEngine is Ready and up to date with the spec that it has now."""

        def holds() -> bool:
            engine = self.get("inferenceengine", name)
            status = engine.get("status") or {}
            met = {one["type"] for one in status.get("conditions") or () if one["status"] == "True"}
            return {"UpToDate", "Ready"} <= met and status.get("observedGeneration") == engine["metadata"]["generation"]

        self.until(holds, f"{name} is Ready and up to date", seconds=seconds)

    def described(self) -> str:
        """Return statuses, pods and events of the namespace, for the person who reads of a failed test."""
        statuses = self.cluster.run(
            *("kubectl", "-n", self.namespace, "get", "inferenceengines,enginebuilds"),
            '-o=jsonpath={range .items[*]}{.kind} {.metadata.name} {.status}{"\\n"}{end}',
        )
        pods = self.cluster.run("kubectl", "-n", self.namespace, "get", "jobs,deployments,pods", "-o=wide")
        events = self.cluster.run(
            "kubectl", "-n", self.namespace, "get", "events", "--sort-by=.metadata.creationTimestamp"
        )
        return f"{statuses.stdout}\n{pods.stdout}\n{events.stdout}"

    def events(self) -> list[Document]:
        """Return the events that the operator wrote here."""
        found = json.loads(self.kubectl("get", "events", "-o=json"))["items"]
        return [one for one in found if one.get("reportingComponent") == "enginesmith-operator"]
