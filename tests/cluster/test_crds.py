"""The API server takes the definitions, refuses what is wrong in a sentence, and shows what a person asks for."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_schema.crd import crd
from api_schema.kinds import DEFINITIONS
from tests.cluster.access import Cluster
from tests.cluster.installation import own_kinds

from enginesmith_contract.backends import Backend, Toolchain
from enginesmith_contract.failure import Failure
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_operator.api.base import ApiModel
from enginesmith_operator.api.conditions import ConditionStatus, StatusCondition
from enginesmith_operator.api.engine_build import (
    BuildFailure,
    BuildPhase,
    BuildResult,
    EngineBuild,
    EngineBuildStatus,
)
from enginesmith_operator.api.engine_status import (
    EngineStatus,
    ExcludedNode,
    ModelStatus,
    PreparationPhase,
    PreparationStatus,
    RejectedEngine,
    StoredEngine,
    TargetEngine,
    TargetPhase,
    TargetStatus,
)

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "objects" / "golden"
TIME = "2026-11-23T00:00:00Z"
DIGEST = "ab" * 32
L4 = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
SHAPE = {"min": [1, 3], "opt": [8, 3], "max": [32, 3]}


@pytest.fixture(scope="module", autouse=True)
def definitions(cluster: Cluster) -> Iterator[None]:
    """The kinds, as they are committed."""
    with own_kinds(cluster):
        cluster.until_defined(*(kind.name for kind in DEFINITIONS))
        yield


@pytest.fixture(scope="module")
def unwatched(cluster: Cluster) -> Iterator[str]:
    """The kinds once more in a group of the tests' own, where no operator writes between two lines of a test."""
    group = f"test-{uuid.uuid4().hex[:8]}.example"
    names = []
    for kind in DEFINITIONS:
        definition = crd(kind)
        names.append(f"{kind.resource.plural}.{group}")
        definition["metadata"]["name"] = names[-1]
        definition["spec"] |= {"group": group}
        del definition["spec"]["names"]["shortNames"], definition["spec"]["names"]["categories"]
        cluster.apply(definition)
    cluster.until_defined(*names)
    yield group
    cluster.kubectl("delete", "crd", *names, "--wait=false")


def _engine(name: str = "resnet50", **spec: object) -> dict[str, Any]:
    return {
        "apiVersion": "enginesmith.io/v1alpha1",
        "kind": "InferenceEngine",
        "metadata": {"name": name},
        "spec": {"model": {"uri": "s3://models/resnet50.onnx"}} | spec,
    }


def _try(cluster: Cluster, namespace: str, *documents: dict[str, Any]) -> str:
    """Return the server's refusal, empty where it takes the objects; nothing is stored."""
    text = yaml.safe_dump_all(documents)
    done = cluster.run("kubectl", "apply", "--server-side", "--dry-run=server", "-n", namespace, "-f", "-", stdin=text)
    return done.stderr if done.returncode else ""


def _golden(name: str, namespace: str) -> list[dict[str, Any]]:
    documents = list(yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")))
    return [one | {"metadata": one["metadata"] | {"namespace": namespace}} for one in documents]


@pytest.fixture
def namespace(cluster: Cluster, namespace: str) -> str:
    """A namespace of the test's own, whose objects may name images and stores that this cluster does not have."""
    cluster.kubectl("label", "namespace", namespace, "enginesmith.io/admission=exempt")
    return namespace


def test_every_field_that_a_user_may_set_is_taken(cluster: Cluster, namespace: str) -> None:
    documents = list(yaml.safe_load_all((ROOT / "docs/reference/every-field.yaml").read_text(encoding="utf-8")))
    for one in documents:
        one["metadata"].pop("namespace", None)
        one["spec"].get("store", {}).pop("path", None)
    # A document of local mode is no business of a cluster's.
    kept = [one for one in documents if one["spec"].get("store") != {} and "://" in one["spec"]["model"]["uri"]]

    assert len(kept) > 1
    assert "".join(_try(cluster, namespace, one) for one in kept) == ""


@pytest.mark.parametrize(
    ("spec", "want_sentence"),
    [
        (
            {"profiles": [{"inputs": {"x": SHAPE | {"min": [9, 3]}}}]},
            "every dimension of min must be at most that of opt",
        ),
        (
            {"profiles": [{"inputs": {"x": SHAPE | {"max": [4, 3]}}}]},
            "every dimension of opt must be at most that of max",
        ),
        (
            {"profiles": [{"inputs": {"x": SHAPE | {"opt": [8]}}}]},
            "min, opt and max must have the same number of dimensions",
        ),
        ({"targets": [L4, L4]}, 'spec.targets: duplicate entries for key [name="l4"]'),
        ({"targets": [L4 | {"replicas": 1, "autoscaling": {"maxReplicas": 2}}]}, "must not be set together"),
        ({"targets": [L4 | {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}]}, "minReplicas must be at most"),
        ({"targets": [L4 | {"provider": "openvino"}]}, "provider is only for the backend onnxruntime"),
        ({"targets": [{"name": "No"}]}, "should match '^[a-z]"),
        ({"model": {"uri": "/models/model.onnx"}}, "a local file is not reachable"),
        ({"store": {"pvc": {"claimName": "a"}, "s3": {"bucket": "b"}}}, "expected exactly one of pvc, s3, oci, path"),
        ({"store": {"path": "/engines"}}, "a local folder is not reachable from the cluster"),
        ({"precision": "fp12"}, "spec.precision"),
        ({"build": {"timeout": "30"}}, "spec.build.timeout"),
        ({"verification": {"inputs": {"x": {"range": [2, 1]}}}}, "the smaller value must come first"),
        ({"podTemplate": {"env": [{"name": "PYTHONPATH", "value": "/models"}]}}, "so it is not allowed"),
        ({"podTemplate": {"env": [{"name": "ld_Preload", "value": "/models/a.so"}]}}, "so it is not allowed"),
        (
            {"podTemplate": {"env": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "a"}}}]}},
            "value and",
        ),
        ({"tagets": []}, "tagets"),
    ],
)
def test_a_wrong_engine_is_refused_in_a_sentence(
    cluster: Cluster, namespace: str, spec: dict[str, Any], want_sentence: str
) -> None:
    assert want_sentence in _try(cluster, namespace, _engine(**spec))


def test_a_name_that_no_service_can_have_is_refused(cluster: Cluster, namespace: str) -> None:
    assert "it names Services" in _try(cluster, namespace, _engine("1st.engine"))


def test_a_spec_of_two_targets_with_one_name_is_refused_by_name_however_it_is_sent(
    cluster: Cluster, namespace: str
) -> None:
    text = yaml.safe_dump(_engine(targets=[L4, L4]))

    done = cluster.run("kubectl", "create", "-n", namespace, "-f", "-", stdin=text)

    assert done.returncode != 0
    assert "Duplicate value" in done.stderr


@pytest.mark.parametrize("name", ["two-products", "autoscaled", "everything-set", "scaled-to-zero"])
def test_the_operator_s_objects_are_taken_and_need_no_privilege(cluster: Cluster, namespace: str, name: str) -> None:
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
    text = yaml.safe_dump_all(_golden(name, namespace))

    done = cluster.run("kubectl", "apply", "--server-side", "--dry-run=server", "-f", "-", stdin=text)

    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


def _build(namespace: str, group: str) -> dict[str, Any]:
    build = next(one for one in _golden("two-products", namespace) if one["kind"] == "EngineBuild")
    del build["metadata"]["ownerReferences"]
    return build | {"apiVersion": f"{group}/v1alpha1"}


def test_a_build_never_changes_but_its_owners_may(cluster: Cluster, namespace: str, unwatched: str) -> None:
    build = _build(namespace, unwatched)
    cluster.apply(build)
    address = (f"enginebuilds.{unwatched}", build["metadata"]["name"], "-n", namespace)
    deeper = {"spec": {"request": {"verification": {"limit": 0.5}}}}

    for change in ({"spec": {"backoffLimit": 5}}, deeper):
        refused = cluster.run("kubectl", "patch", *address, "--type=merge", "-p", json.dumps(change))
        assert refused.returncode != 0
        assert "the spec is immutable: create another EngineBuild for another build" in refused.stderr
    cluster.kubectl("label", *address, "owner=another")
    cluster.apply(build)


def _json(status: ApiModel) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def _condition(status: ConditionStatus, reason: str, kind: str = "Ready") -> StatusCondition:
    return StatusCondition(
        type=kind, status=status, observed_generation=1, last_transition_time=TIME, reason=reason, message="a line"
    )


ENGINE_STATUS = EngineStatus(
    observed_generation=1,
    serving="1/2",
    serving_on="l4: NVIDIA-L4",
    target_names="l4,cpu",
    model=ModelStatus(uri="s3://models/resnet50.onnx", digest=DIGEST, resolved_at=TIME),
    preparation=PreparationStatus(
        request="f" * 20,
        phase=PreparationPhase.SUCCEEDED,
        key=DIGEST,
        source_digest=DIGEST,
        size_bytes=1,
        facts=ModelFacts(
            inputs=(TensorSpec(name="x", dtype=DType.FP32, shape=(-1, 3), symbols=("batch", None)),),
            outputs=(),
            opset=17,
            size_bytes=1,
        ),
        failure=Failure(exit_code=12, what="w" * 4000, reason="SourceFailed"),
        stored_engines=(StoredEngine(key=DIGEST, digest=DIGEST),),
        warnings=("opset 9 is old",),
        finished_at=TIME,
    ),
    targets=(
        TargetStatus(
            name="l4",
            phase=TargetPhase.SERVING,
            toolchain=Toolchain(name="trt", backend=Backend.TENSORRT, version="10.13.3.9", cuda="12.9"),
            engines=(TargetEngine(key=DIGEST, product="NVIDIA-L4", stored=True, serving=True),),
            desired=(DIGEST,),
            serving=(DIGEST,),
            rejected=(RejectedEngine(key=DIGEST, reason="Tampered", message="m", node="n1"),),
            excluded=(ExcludedNode(name="n1", reason="DriverFloor", message="m", fingerprint="x"),),
            nodes=("gpu-l4",),
            replicas=1,
            ready_replicas=1,
            since=TIME,
        ),
    ),
    conditions=(
        _condition(ConditionStatus.TRUE, "Serving"),
        _condition(ConditionStatus.FALSE, "QuickEngine", "UpToDate"),
    ),
)
BUILD_STATUS = EngineBuildStatus(
    observed_generation=1,
    phase=BuildPhase.FAILED,
    progress="build",
    node="gpu-l4",
    attempts=1,
    started_at=TIME,
    duration_seconds=12.5,
    result=BuildResult(engine_digest=DIGEST, latency_seconds={"default": 0.0007}, difference=1e-4),
    failure=BuildFailure(reason="BuildFailed", message="m", exit_code=14, log_tail="a\nb"),
    conditions=(_condition(ConditionStatus.FALSE, "BuildFailed"),),
)


def _write_status(
    cluster: Cluster, namespace: str, kind: str, document: dict[str, Any], status: dict[str, Any]
) -> dict[str, Any]:
    cluster.apply(document)
    address = (kind, document["metadata"]["name"], "-n", namespace)
    patch = json.dumps({"status": status})
    cluster.kubectl("patch", *address, "--subresource=status", "--type=merge", "-p", patch)
    return cluster.get(*address)


def _engine_of(namespace: str, group: str) -> dict[str, Any]:
    metadata = {"name": "resnet50", "namespace": namespace}
    return _engine(targets=[L4]) | {"apiVersion": f"{group}/v1alpha1", "metadata": metadata}


def test_a_status_is_stored_as_it_was_written(cluster: Cluster, namespace: str, unwatched: str) -> None:
    engine, build = _engine_of(namespace, unwatched), _build(namespace, unwatched)

    stored_engine = _write_status(cluster, namespace, f"inferenceengines.{unwatched}", engine, _json(ENGINE_STATUS))
    stored_build = _write_status(cluster, namespace, f"enginebuilds.{unwatched}", build, _json(BUILD_STATUS))

    assert stored_engine["status"] == _json(ENGINE_STATUS)
    assert stored_build["status"] == _json(BUILD_STATUS)
    assert EngineStatus.model_validate(stored_engine["status"]) == ENGINE_STATUS
    assert EngineBuild.model_validate(stored_build | {"apiVersion": "enginesmith.io/v1alpha1"}).status == BUILD_STATUS


def test_a_listing_of_engines_says_what_serves_on_what_since_when(
    cluster: Cluster, namespace: str, unwatched: str
) -> None:
    kind = f"inferenceengines.{unwatched}"
    _write_status(cluster, namespace, kind, _engine_of(namespace, unwatched), _json(ENGINE_STATUS))

    head, line = cluster.kubectl("get", kind, "-n", namespace).splitlines()

    assert head.split() == ["NAME", "READY", "UP-TO-DATE", "SERVING", "ON", "SINCE", "REASON", "AGE"]
    assert line.split()[:6] == ["resnet50", "True", "False", "1/2", "l4:", "NVIDIA-L4"]
    assert "QuickEngine" in line.split()


def test_a_listing_of_builds_says_how_far_they_are_and_where(cluster: Cluster, namespace: str, unwatched: str) -> None:
    kind = f"enginebuilds.{unwatched}"
    _write_status(cluster, namespace, kind, _build(namespace, unwatched), _json(BUILD_STATUS))

    head, line = cluster.kubectl("get", kind, "-n", namespace).splitlines()

    assert head.split() == ["NAME", "PHASE", "TARGET", "GPU", "NODE", "PROGRESS", "REASON", "SECONDS", "AGE"]
    assert line.split()[1:8] == ["Failed", "ada", "NVIDIA-L4", "gpu-l4", "build", "BuildFailed", "12.5"]


@pytest.mark.parametrize("field", ["ie.spec.targets.gpu.product", "ie.status.targets.phase", "eb.spec.placement.pins"])
def test_every_field_explains_itself(cluster: Cluster, field: str) -> None:
    text = cluster.kubectl("explain", field)

    assert "DESCRIPTION" in text
    assert "<empty>" not in text
