"""What the chart's admission policies refuse: a tenant's attempts fail with a sentence, operator up or down."""

import json
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.access import Cluster
from tests.cluster.installation import SYSTEM, scale_operator

from enginesmith_operator.objects.labels import engine_selector

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

Document = dict[str, Any]

GOLDEN = Path(__file__).resolve().parents[1] / "objects/golden/two-products.yaml"
TENANT = "tenant@example.com"
CONTROLLERS = [f"system:serviceaccount:kube-system:{one}-controller" for one in ("replicaset", "job", "statefulset")]
OPERATOR = f"system:serviceaccount:{SYSTEM}:enginesmith-operator"
ANOTHER = "builder-of-another-team"
FOREIGN = f"registry.example/other@sha256:{'c' * 64}"
PRIVATE = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
SELECTED = engine_selector("attempt")
"""The labels that a Service selects pods by."""


@pytest.fixture
def catalog_image(cluster: Cluster, sole_operator: None) -> str:
    """An image of the installed operator's catalog."""
    assert sole_operator is None
    catalog = cluster.get("-n", SYSTEM, "configmap", "enginesmith-toolchains")["data"]
    texts = json.dumps(list(catalog.values())).replace("\\n", " ").replace('"', " ").replace("\\", " ").split()
    return next(one for one in texts if "@sha256:" in one)


@pytest.fixture
def editor(cluster: Cluster, namespace: str, sole_operator: None) -> str:
    """A namespace in which the tenant has the role `edit`."""
    assert sole_operator is None
    cluster.kubectl("-n", namespace, "create", "rolebinding", "tenant", "--clusterrole=edit", f"--user={TENANT}")
    cluster.kubectl("-n", namespace, "create", "serviceaccount", ANOTHER)
    users = (f"--user={one}" for one in CONTROLLERS)
    cluster.kubectl("-n", namespace, "create", "rolebinding", "controllers", "--clusterrole=admin", *users)
    for user in (TENANT, *CONTROLLERS):
        cluster.until_allowed(user, "create", "pods", namespace)
    # The rules and the catalog that they read may have been installed just now.
    give_up = time.monotonic() + 300
    while "is not in the toolchain catalog" not in (answer := said(cluster, namespace, pod(pod_spec(FOREIGN)))):
        assert time.monotonic() < give_up, answer
        time.sleep(0.2)
    return namespace


@pytest.fixture
def builder(cluster: Cluster, editor: str) -> str:
    """A namespace in which the tenant may create EngineBuilds too, as a CI pipeline does."""
    cluster.kubectl("-n", editor, "create", "role", "ci", "--verb=create", "--resource=enginebuilds.enginesmith.io")
    cluster.kubectl("-n", editor, "create", "rolebinding", "ci", "--role=ci", f"--user={TENANT}")
    cluster.until_allowed(TENANT, "create", "enginebuilds.enginesmith.io", editor)
    return editor


@pytest.fixture(params=["up", pytest.param("down", marks=pytest.mark.extended)])
def operator_state(request: pytest.FixtureRequest, cluster: Cluster, sole_operator: None) -> Iterator[str]:
    """The installed operator as it is, and scaled to zero."""
    assert sole_operator is None
    if request.param == "down":
        scale_operator(cluster, 0)
    yield request.param
    if request.param == "down":
        scale_operator(cluster, 2)


def pod_spec(image: str, **changes: object) -> Document:
    return {
        "automountServiceAccountToken": False,
        "securityContext": PRIVATE,
        "containers": [{"name": "main", "image": image}],
    } | changes


def pod(spec: Document, component: str = "build", labels: dict[str, str] | None = None) -> Document:
    made = labels or {"app.kubernetes.io/managed-by": "enginesmith", "app.kubernetes.io/component": component}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "attempt", "labels": made}, "spec": spec}


def workload(kind: str, image: str, labels: dict[str, str] | None = None) -> Document:
    template = pod(pod_spec(image), "server", labels)
    labels = template["metadata"]["labels"]
    made: Document = {"metadata": {"labels": labels}, "spec": template["spec"]}
    head: Document = {"kind": kind, "metadata": {"name": "attempt"}}
    if kind == "Job":
        made["spec"] |= {"restartPolicy": "Never"}
        return head | {"apiVersion": "batch/v1", "spec": {"template": made}}
    return head | {"apiVersion": "apps/v1", "spec": {"selector": {"matchLabels": labels}, "template": made}}


def engine(**spec: object) -> Document:
    model = {"uri": "https://models.example/model.onnx"}
    target = {"name": "cpu", "backend": "onnxruntime"}
    return {
        "apiVersion": "enginesmith.io/v1alpha1",
        "kind": "InferenceEngine",
        "metadata": {"name": "attempt"},
        "spec": {"model": model, "targets": [target]} | spec,
    }


def build(namespace: str, image: str, **spec: object) -> Document:
    """An EngineBuild as a CI pipeline writes one."""
    documents = yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8"))
    found: Document = next(one for one in documents if one["kind"] == "EngineBuild")
    request = found["spec"]["request"] | {"store": f"s3://mine/{namespace}"}
    changed = {"image": image, "request": request, "store": {"s3": {"bucket": "mine"}}}
    return found | {"metadata": {"name": "attempt"}, "spec": found["spec"] | changed | spec}


def said(cluster: Cluster, namespace: str, document: Document, user: str = TENANT) -> str:
    """What the API server says to a user who creates an object, which is not kept; empty: it takes it."""
    words = ("-n", namespace, f"--as={user}", "create", "--dry-run=server", "-f", "-")
    done = cluster.run("kubectl", *words, stdin=json.dumps(document))
    return "" if done.returncode == 0 else done.stderr


def volume(**source: object) -> list[Document]:
    return [{"name": "data", **source}]


def test_a_pod_as_the_operator_makes_it_is_let_in_and_others_are_not_looked_at(
    cluster: Cluster, editor: str, catalog_image: str, sole_operator: None
) -> None:
    assert sole_operator is None
    assert said(cluster, editor, pod(pod_spec(catalog_image))) == ""
    own: tuple[Document, ...] = (
        {"emptyDir": {}},
        {"secret": {"secretName": "s3"}},
        {"persistentVolumeClaim": {"claimName": "engines"}},
    )
    for source in own:
        assert said(cluster, editor, pod(pod_spec(catalog_image, volumes=volume(**source)))) == ""
    stranger = pod(pod_spec(FOREIGN)) | {"metadata": {"name": "mine", "labels": {"app": "mine"}}}
    assert said(cluster, editor, stranger) == ""
    assert said(cluster, editor, engine()) == ""
    assert said(cluster, editor, workload("Deployment", catalog_image)) == ""


def test_a_tenant_s_pods_are_refused_with_field_and_rule(
    cluster: Cluster, editor: str, catalog_image: str, operator_state: str
) -> None:
    main = {"name": "main", "image": catalog_image}
    token = {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    audience = {"path": "token", "audience": "https://kubernetes.default.svc.cluster.local"}
    api_token = {"projected": {"sources": [{"serviceAccountToken": audience}]}}
    attempts: list[tuple[Document, tuple[str, ...]]] = [
        (pod_spec(FOREIGN), (FOREIGN, "enginesmith-toolchains")),
        (pod_spec("registry.example/other:latest"), (":latest", "is not in the toolchain catalog")),
        (pod_spec(catalog_image, initContainers=[main | {"name": "init", "image": FOREIGN}]), (FOREIGN,)),
        (pod_spec(catalog_image, volumes=volume(hostPath={"path": "/"})), ("spec.volumes", "data", "hostPath")),
        (pod_spec(catalog_image, volumes=volume(nfs={"server": "nfs", "path": "/"})), ("spec.volumes", "data")),
        (pod_spec(catalog_image, hostNetwork=True), ("spec.hostNetwork",)),
        (pod_spec(catalog_image, hostPID=True), ("spec.hostPID",)),
        (pod_spec(catalog_image, hostIPC=True), ("spec.hostIPC",)),
        (pod_spec(catalog_image, containers=[main | {"ports": [{"containerPort": 1, "hostPort": 1}]}]), ("hostPort",)),
        (
            pod_spec(
                catalog_image, initContainers=[main | {"name": "i", "ports": [{"containerPort": 1, "hostPort": 1}]}]
            ),
            ("hostPort",),
        ),
        (pod_spec(catalog_image, volumes=volume(image={"reference": FOREIGN})), (FOREIGN, "enginesmith-toolchains")),
        (
            pod_spec(FOREIGN, hostNetwork=True, volumes=volume(hostPath={"path": "/"}), serviceAccountName=ANOTHER),
            (FOREIGN, "spec.volumes", "spec.hostNetwork", "spec.serviceAccountName"),
        ),
        *(
            (
                pod_spec(catalog_image, containers=[main | {"securityContext": wanted}]),
                ("securityContext", "privileges"),
            )
            for wanted in (
                {"privileged": True},
                {"allowPrivilegeEscalation": True},
                {"capabilities": {"add": ["SYS_ADMIN"]}},
                {"runAsUser": 0},
                {"runAsNonRoot": False},
                {"seccompProfile": {"type": "Unconfined"}},
                {"seLinuxOptions": {"type": "spc_t"}},
            )
        ),
        (pod_spec(catalog_image, securityContext={"runAsNonRoot": False}), ("securityContext",)),
        (pod_spec(catalog_image, serviceAccountName=ANOTHER), ("spec.serviceAccountName",)),
        (pod_spec(catalog_image, automountServiceAccountToken=True), ("spec.automountServiceAccountToken",)),
        (
            pod_spec(catalog_image, serviceAccountName="default", volumes=volume(**token)),
            ("spec.automountServiceAccountToken", "audience"),
        ),
        (
            pod_spec(catalog_image, volumes=volume(**api_token)),
            ("spec.automountServiceAccountToken", "audience"),
        ),
    ]
    for (spec, parts), component in zip(attempts, cycle(("preparation", "build", "server")), strict=False):
        answer = said(cluster, editor, pod(spec, component))
        assert "enginesmith-pods" in answer, (operator_state, spec, answer)
        assert [part for part in parts if part not in answer] == [], answer


def test_the_labels_that_a_service_selects_by_are_enough_for_the_rules_and_later_labels_are_as_good(
    cluster: Cluster, editor: str, catalog_image: str
) -> None:
    assert said(cluster, editor, pod(pod_spec(catalog_image), labels=SELECTED)) == ""
    for labels in (SELECTED, None):
        assert FOREIGN in said(cluster, editor, pod(pod_spec(FOREIGN), labels=labels))
        assert FOREIGN in said(cluster, editor, workload("Deployment", FOREIGN, labels))
    later = pod(pod_spec(FOREIGN, volumes=volume(hostPath={"path": "/"}), nodeSelector={"none": "such"}))
    later["metadata"]["labels"] = {"app": "mine"}
    cluster.apply(later | {"metadata": later["metadata"] | {"namespace": editor}})
    words = (f"{key}={value}" for key, value in SELECTED.items())
    done = cluster.run("kubectl", "-n", editor, f"--as={TENANT}", "label", "--dry-run=server", "pod/attempt", *words)
    assert done.returncode != 0
    assert [part for part in (FOREIGN, "spec.volumes", "hostPath") if part not in done.stderr] == []


def test_a_tenant_s_documents_are_refused_with_field_and_rule(
    cluster: Cluster, editor: str, operator_state: str
) -> None:
    s3 = {"bucket": "engines", "endpoint": "https://s3.example"}
    of_store = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "AWS_SECRET_ACCESS_KEY"}}}
    attempts: list[tuple[Document, tuple[str, ...]]] = [
        *(
            (engine(model={"uri": uri}), ("spec.model.uri", uri, "addresses.allowed"))
            for uri in (
                "http://169.254.169.254/latest/meta-data/iam/security-credentials/node",
                "http://[fd00:ec2::254]/model.onnx",
                "http://100.100.100.200/model.onnx",
                "http://127.0.0.1:8080/model.onnx",
                "http://localhost/model.onnx",
                "http://[::1]/model.onnx",
                "https://10.96.0.1/api",
                "http://[::ffff:10.96.0.1]/api",
                "http://[0:0:0:0:0:ffff:a60:1]/api",
                "http://[::10.96.0.1]/api",
                "http://[fec0::1]/model.onnx",
                "http://198.18.0.1/model.onnx",
                "http://2852039166/model.onnx",
                "http://0xa9.0xfe.0xa9.0xfe/model.onnx",
                "http://metadata.google.internal/model.onnx",
                "http://METADATA.google.internal./model.onnx",
                "http://LocalHost./model.onnx",
                "oci://10.96.0.1:5000/models:v1",
            )
        ),
        *(
            (engine(model={"uri": uri}), ("spec.model.uri", uri, "no host that can be checked"))
            for uri in (
                "http://[fe80::1%25eth0]/model.onnx",
                "http://\uff11\uff16\uff19.254.169.254/model.onnx",
                "http://169\u3002254\u3002169\u3002254/model.onnx",
                "http://169.254.169.254/%zz",
            )
        ),
        (
            engine(model={"uri": "s3://models/model.onnx", "options": {"endpoint": "http://169.254.169.254"}}),
            ("spec.model.options.endpoint", "169.254.169.254"),
        ),
        *(
            (
                engine(precision={"default": "int8", "calibration": data}),
                ("spec.precision.calibration", "169.254.169.254"),
            )
            for data in ("http://169.254.169.254/samples.npz", {"source": "http://169.254.169.254/samples.npz"})
        ),
        (
            engine(verification={"inputs": {"x": {"npz": "http://10.96.0.1/x.npz"}}}),
            ("spec.verification.inputs[].npz", "10.96.0.1"),
        ),
        (
            engine(build={"plugins": [{"uri": "http://10.96.0.1/p.so", "sha256": "ab" * 32}]}),
            ("spec.build.plugins[].uri", "10.96.0.1"),
        ),
        (engine(store={"s3": s3 | {"endpoint": "http://10.96.0.1"}}), ("spec.store.s3.endpoint",)),
        (engine(store={"s3": s3 | {"prefix": "another-team"}}), ("spec.store.s3.prefix", "another namespace's")),
        (engine(store={"s3": s3 | {"prefix": "a/../b"}}), ("spec.store.s3", "prefix", "leaves its folder")),
        (engine(store={"pvc": {"claimName": "c", "subPath": "../other"}}), ("spec.store.pvc", "subPath", "leaves")),
        (engine(store={"oci": {"repository": "169.254.169.254/engines"}}), ("spec.store.oci.repository",)),
        (engine(podTemplate={"env": [of_store]}), ("env[].valueFrom.secretKeyRef", "s3", "engine store")),
        *(
            (engine(serving=serving), ("spec.serving", field, "s3", "engine store"))
            for serving, field in (
                ({"tls": {"secretName": "s3"}}, "tls.secretName"),
                ({"tls": {"secretName": "mine", "clientCASecretName": "s3"}}, "tls.clientCASecretName"),
                ({"auth": {"tokensSecretName": "s3"}}, "auth.tokensSecretName"),
            )
        ),
        (engine(store={"s3": {"bucket": "engines/another-team"}}), ("spec.store.s3.bucket",)),
        (engine(model={"uri": "pvc://claim/../../etc/passwd"}), ("spec.model.uri", "leaves its volume")),
        (
            engine(model={"uri": "s3://m/m.onnx", "options": {"endpoint": "169.254.169.254:80"}}),
            ("spec.model.options.endpoint", "no host"),
        ),
        (
            engine(podTemplate={"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}),
            ("env[].name", "NVIDIA_VISIBLE_DEVICES"),
        ),
        *(
            (engine(**{part: {"resources": {"limits": {name: "8"}}}}), (f"spec.{part}.resources.limits: {name}",))
            for part in ("podTemplate", "build")
            for name in ("nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "aliyun.com/gpu-mem")
        ),
        (engine(podTemplate={"serviceAccountName": ANOTHER}), ("spec.podTemplate.serviceAccountName", ANOTHER)),
        (
            engine(
                model={"uri": "http://10.96.0.1/m"}, store={"s3": s3 | {"prefix": "b"}}, podTemplate={"env": [of_store]}
            ),
            ("spec.model.uri", "spec.store.s3.prefix", "spec.podTemplate.env[]"),
        ),
        *(
            (engine(podTemplate={"env": [{"name": name, "value": "/models"}]}), ("spec.podTemplate.env[0]", "load"))
            for name in ("PYTHONPATH", "LD_PRELOAD", "ld_library_path", "ENGINESMITH_ADDRESSES")
        ),
        (engine(podTemplate={"priorityClassName": "system-node-critical"}), ("spec.podTemplate", "priorityClassName")),
        (engine(build={"priorityClassName": "system-cluster-critical"}), ("spec.build", "priorityClassName")),
        (engine(podTemplate={"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}), ("spec.podTemplate.volumes",)),
        (engine(podTemplate={"hostNetwork": True}), ("spec.podTemplate.hostNetwork",)),
        (engine(podTemplate={"securityContext": {"privileged": True}}), ("spec.podTemplate.securityContext",)),
        (engine(model={"uri": "s3://m/m.onnx", "secretRef": {"name": "other/s3"}}), ("spec.model.secretRef.name",)),
    ]
    for document, parts in attempts:
        answer = said(cluster, editor, document)
        assert answer, (operator_state, document)
        assert [part for part in parts if part not in answer] == [], (parts, answer)


def test_a_tenant_s_builds_are_refused_with_field_and_rule(
    cluster: Cluster, builder: str, catalog_image: str, operator_state: str
) -> None:
    good = build(builder, catalog_image)
    request = good["spec"]["request"]
    plugin = {"uri": "http://169.254.169.254/p.so", "sha256": "ab" * 32}
    options = request["options"] | {"plugins": [plugin]}
    attempts: list[tuple[Document, tuple[str, ...]]] = [
        (build(builder, FOREIGN), ("spec.image", FOREIGN)),
        (build(builder, catalog_image, request=request | {"store": "s3://mine/other"}), ("spec.request.store",)),
        (
            build(builder, catalog_image, request=request | {"store": f"s3://engines/{builder}"}),
            ("spec.request.store",),
        ),
        (
            build(builder, catalog_image, request=request | {"store": f"s3://mine/victim/{builder}"}),
            ("spec.request.store", f"(s3://mine/{builder})"),
        ),
        (
            build(builder, catalog_image, placement={"serviceAccountName": ANOTHER}),
            ("spec.placement.serviceAccountName", ANOTHER),
        ),
        (build(builder, catalog_image, request=request | {"options": options}), ("plugins[].uri", "169.254.169.254")),
        (
            build(builder, catalog_image, placement={"priorityClassName": "system-node-critical"}),
            ("priorityClassName",),
        ),
    ]
    assert said(cluster, builder, good) == "", operator_state
    for document, parts in attempts:
        answer = said(cluster, builder, document)
        assert answer, document
        assert [part for part in parts if part not in answer] == [], (parts, answer)


def test_an_image_is_checked_where_a_template_is_written_so_that_a_replica_may_keep_an_older_one(
    cluster: Cluster, editor: str, sole_operator: None
) -> None:
    assert sole_operator is None
    for kind in ("Deployment", "ReplicaSet", "Job"):
        answer = said(cluster, editor, workload(kind, FOREIGN))
        assert "enginesmith-pod-templates" in answer
        assert FOREIGN in answer
        # What it took from the catalog earlier may have left the catalog since then.
        assert said(cluster, editor, workload(kind, FOREIGN), OPERATOR) == "" or kind == "ReplicaSet"
    *checked, other = CONTROLLERS
    assert [said(cluster, editor, pod(pod_spec(FOREIGN)), user) for user in checked] == ["", ""]
    assert FOREIGN in said(cluster, editor, pod(pod_spec(FOREIGN)), other)
