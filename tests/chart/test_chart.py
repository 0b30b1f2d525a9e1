"""The Helm chart: what it installs, what it lets the operator do, and which values it refuses.

UPDATE_GOLDEN=1 writes the golden files anew.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from enginesmith_operator.controller.shared.settings import load_settings
from enginesmith_operator.kinds import CONFIG_MAP, KINDS, LEASE, REGISTER
from enginesmith_operator.planning.catalog import read_catalog

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "enginesmith"
HERE = Path(__file__).resolve().parent
EVERYTHING = HERE / "everything.yaml"
NAMESPACE = "enginesmith-system"
OF_RELEASE = f"enginesmith-operator-{NAMESPACE}"
"""What the release has outside its namespace."""

Document = Mapping[str, Any]


@pytest.fixture(scope="session")
def helm() -> str:
    run = subprocess.run([ROOT / "hack/tool", "helm"], check=True, capture_output=True, text=True)
    return run.stdout.strip()


def render(helm: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [helm, "template", "enginesmith", str(CHART), "--namespace", NAMESPACE, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def documents(helm: str, *arguments: str) -> list[Document]:
    run = render(helm, *arguments)
    assert run.returncode == 0, run.stderr
    return [document for document in yaml.safe_load_all(run.stdout) if document]


def one(found: list[Document], kind: str, name: str = "") -> Document:
    (document,) = (each for each in found if each["kind"] == kind and (not name or each["metadata"]["name"] == name))
    return document


@pytest.mark.parametrize("values", [(), ("--values", str(EVERYTHING))], ids=["defaults", "everything"])
def test_the_chart_is_clean(helm: str, values: tuple[str, ...]) -> None:
    run = subprocess.run([helm, "lint", "--strict", str(CHART), *values], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert "[WARNING]" not in run.stdout


@pytest.mark.parametrize(("name", "values"), [("defaults", ()), ("everything", ("--values", str(EVERYTHING)))], ids=str)
def test_the_rendered_objects_are_the_golden_ones(helm: str, name: str, values: tuple[str, ...]) -> None:
    run = render(helm, *values)
    assert run.returncode == 0, run.stderr
    golden = HERE / "golden" / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(run.stdout, encoding="utf-8")
    assert run.stdout == golden.read_text(encoding="utf-8")


def test_the_operator_reads_the_configuration_that_the_chart_writes(helm: str, tmp_path: Path) -> None:
    found = documents(helm, "--values", str(EVERYTHING))
    text = one(found, "ConfigMap", "enginesmith-operator")["data"]["operator.yaml"]
    (tmp_path / "operator.yaml").write_text(text, encoding="utf-8")
    settings = load_settings(tmp_path / "operator.yaml")
    assert settings.store.shared
    assert settings.store.default is not None
    assert settings.store.default.s3 is not None
    assert settings.workers == 4
    assert settings.node_classes[0].memory_mib == 81920
    assert settings.catalog.name == "enginesmith-toolchains"
    assert settings.lease.name == "enginesmith-operator"


def test_the_operator_reads_every_entry_of_the_catalog_that_the_chart_writes(helm: str) -> None:
    found = documents(helm, "--values", str(EVERYTHING))
    catalog = read_catalog(one(found, "ConfigMap", "enginesmith-toolchains")["data"])
    assert catalog.problems == ()
    assert catalog.entries["trt-10.13-cu12"].version == "10.10"
    assert catalog.entries["ort-cpu"].platforms == ("linux/amd64", "linux/arm64")


def rules(found: list[Document], kind: str, name: str = OF_RELEASE) -> Iterator[tuple[str, str, str, str]]:
    """Yield (group, resource, verb, name) of the operator's rules; the name is empty for any."""
    for rule in one(found, kind, name)["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    for each in rule.get("resourceNames", [""]):
                        yield group, resource, verb, each


def test_the_operator_may_do_what_its_client_does_and_nothing_else(helm: str) -> None:
    found = documents(helm)
    may = set(rules(found, "ClusterRole"))
    names = {CONFIG_MAP: "enginesmith-toolchains"}
    want = {
        (each.group, f"{each.plural}/{grant.subresource}".rstrip("/"), verb, names.get(each, ""))
        for each in KINDS
        if not each.in_own_namespace
        for grant in each.rights()
        for verb in grant.verbs
    }
    assert may == want
    for role, lease in (("enginesmith-operator", "enginesmith-operator"), (OF_RELEASE, REGISTER)):
        assert set(rules(found, "Role", role)) == {
            (LEASE.group, "leases", "get", lease),
            (LEASE.group, "leases", "update", lease),
            (LEASE.group, "leases", "create", ""),
        }
    assert one(found, "Role", OF_RELEASE)["metadata"]["namespace"] == "kube-system"


def test_all_releases_enter_themselves_in_the_namespace_that_is_set(helm: str) -> None:
    found = documents(helm, "--set", "config.registrationNamespace=shared")
    for kind in ("Role", "RoleBinding"):
        assert one(found, kind, OF_RELEASE)["metadata"]["namespace"] == "shared"
    text = one(found, "ConfigMap", "enginesmith-operator")["data"]["operator.yaml"]
    assert yaml.safe_load(text)["registrationNamespace"] == "shared"


def test_two_releases_of_one_name_share_no_right(helm: str) -> None:
    kinds = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}

    def names(namespace: str) -> set[tuple[str, str, str]]:
        found = documents(
            helm, "--set", "namespaces={vision}", "--set", "rbac.aggregate=false", "--namespace", namespace
        )
        heads = [(each["kind"], each["metadata"]) for each in found if each["kind"] in kinds]
        return {(kind, head.get("namespace", ""), head["name"]) for kind, head in heads}

    assert names("one")
    assert not names("one") & names("other")


def test_an_operator_of_some_namespaces_has_its_rights_there_and_only_reads_what_has_no_namespace(helm: str) -> None:
    found = documents(helm, "--set", "namespaces={vision}")
    want = {(each.group, each.plural) for each in KINDS if not each.is_namespaced}
    assert {(group, kind) for group, kind, _, _ in rules(found, "ClusterRole")} == want
    bound = [
        (each["metadata"]["namespace"], each["roleRef"]["name"])
        for each in found
        if each["kind"] == "RoleBinding" and each["roleRef"]["kind"] == "ClusterRole"
    ]
    assert bound == [(name, f"{OF_RELEASE}-namespaces") for name in ("vision", NAMESPACE)]
    role = one(found, "ClusterRole", f"{OF_RELEASE}-namespaces")["rules"]
    whole = one(documents(helm), "ClusterRole", OF_RELEASE)["rules"]
    assert [each for each in whole if each not in one(found, "ClusterRole", OF_RELEASE)["rules"]] == role
    text = one(found, "ConfigMap", "enginesmith-operator")["data"]["operator.yaml"]
    assert yaml.safe_load(text)["namespaces"] == ["vision"]


def test_helm_test_is_of_the_store_and_the_catalog_that_the_values_name(helm: str) -> None:
    entry = f'toolchains.trt={{"backend":"tensorrt","version":"10.6","image":"a@sha256:{"0" * 64}"}}'
    claim = documents(helm, "--set-json", entry, "--set", "store.default.pvc.claimName=engines")
    engine = one(claim, "InferenceEngine")
    assert engine["spec"]["model"] == {"uri": "pvc://engines/helm-test/model.onnx"}
    assert engine["spec"]["targets"] == [{"name": "test"}]
    assert engine["metadata"]["annotations"]["helm.sh/hook"] == "test"
    oci = 'store.default.oci={"repository":"a.example/engines/","plainHttp":true,"secretRef":{"name":"registry"}}'
    registry = documents(helm, "--set-json", entry, "--set-json", oci)
    assert one(registry, "InferenceEngine")["spec"]["model"] == {
        "uri": f"oci://a.example/engines/{NAMESPACE}/helm-test:model",
        "options": {"plainHttp": "true"},
        "secretRef": {"name": "registry"},
    }
    everything = documents(helm, "--values", str(EVERYTHING))
    assert one(everything, "InferenceEngine")["metadata"]["namespace"] == "vision"
    assert one(everything, "InferenceEngine")["spec"]["targets"] == [{"name": "test", "gpu": {"product": "NVIDIA-L4"}}]
    # Without a store or a toolchain nothing can be tested.
    assert not any(each["kind"] == "InferenceEngine" for each in documents(helm))


@pytest.mark.parametrize("values", [(), ("--values", str(EVERYTHING))], ids=["defaults", "everything"])
def test_the_pods_are_restricted(helm: str, values: tuple[str, ...]) -> None:
    found = documents(helm, *values)
    tests = [each["spec"] for each in found if each["kind"] == "Pod"]
    for spec in (one(found, "Deployment")["spec"]["template"]["spec"], *tests):
        _check_restricted(spec)


def _check_restricted(spec: Document) -> None:
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
    assert all({"configMap", "emptyDir"} & set(volume) for volume in spec["volumes"])


def test_a_change_of_the_configuration_starts_new_pods_and_one_of_the_catalog_does_not(helm: str) -> None:
    def annotation(*values: str) -> str:
        template = one(documents(helm, *values), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["enginesmith.io/configuration"])

    digest = "sha256:" + "0" * 64
    entry = ["--set-json", f'toolchains.ort={{"backend":"onnxruntime","version":"1.23","image":"a@{digest}"}}']
    assert annotation() == annotation(*entry)
    assert annotation() != annotation("--set", "config.workers=3")


def test_the_crds_of_the_chart_are_the_generated_ones() -> None:
    names = sorted(path.name for path in (ROOT / "crds").iterdir())
    assert names == sorted(path.name for path in (CHART / "crds").iterdir())
    for name in names:
        assert (CHART / "crds" / name).read_bytes() == (ROOT / "crds" / name).read_bytes()


@pytest.mark.parametrize(
    ("setting", "want_field"),
    [
        ("replica=3", "replica"),
        ("replicas=two", "replicas"),
        ("namespaces=vision", "namespaces"),
        ("config.namespaces[0]=vision", "namespaces"),
        ("extraEnv[0].key=A", "extraEnv"),
        ("test.target.name=a", "target"),
        ("image.digest=latest", "digest"),
        ("config.worker=3", "worker"),
        ("config.workers=0", "workers"),
        ("config.nodeGrace=soon", "nodeGrace"),
        ("config.store.shared=true", "store"),
        ("config.tracing.endpoint=collector", "endpoint"),
        ("config.tracing.endpoint=http://a,config.tracing.variables.PATH=here", "variables"),
        ("store.default.pvc.claim=engines", "default"),
        ("toolchains.ort.backend=onnx", "backend"),
        ("toolchains.ort.version=1", "version"),
        ("toolchains.ort.image=runtime:latest", "image"),
        ("policies.vision.gpuProduct=NVIDIA-L4", "gpuProduct"),
        ("policies.vision.limits.workspace=lots", "workspace"),
        ("networkPolicy.apiServerPorts[0]=0", "apiServerPorts"),
        ("networkPolicy.tenants.namespaces=vision", "namespaces"),
        ("config.addresses.allow[0]=10.0.0.0/8", "allow"),
        ("admission.pods.serviceAccounts=default", "serviceAccounts"),
        ("admission.pod.enabled=false", "pod"),
        ("metrics.podMonitor.interval=soon", "interval"),
        ("metrics.prometheusRule.disabled={EnginesmithDown}", "disabled"),
        ("metrics.dashboard.enabled=true", "dashboard"),
        ("config=null", "missing property 'config'"),
        ("admission.documents=null", "missing property 'documents'"),
        ("config.addresses.allowed={nonsense}", "/config/addresses/allowed/0"),
        ("config.addresses.allowed={10.0.0.0}", "/config/addresses/allowed/0"),
        ("config.addresses.allowed={10.0.0.0/33}", "/config/addresses/allowed/0"),
        ("networkPolicy.tenants.egress[0].cidr=300.0.0.0/8", "/networkPolicy/tenants/egress/0/cidr"),
        ("store.default.pvc.claimName=a,store.default.s3.bucket=b", "/store/default"),
        ("store.default.path=/engines", "/store/default"),
        ("store.default.s3.bucket=a,store.default.s3.endpoint=10.0.0.1:9000", "/store/default/s3/endpoint"),
        ("store.default.s3.bucket=engines/team", "/store/default/s3/bucket"),
        ("config.signatures.engineKeys.a=-----BEGIN PUBLIC KEY-----", "engineSecret"),
        ("namespaces={Vision}", "/namespaces/0"),
        ("test.namespace=a b", "/test/namespace"),
        ("policies.Vision.digestRequired=true", "Vision"),
        ("image.repository=a b", "/image/repository"),
        ("imagePullSecrets[0].name=A", "/imagePullSecrets/0/name"),
        ("resources.limits.memory=lots", "/resources/limits/memory"),
        ("resources.limit.memory=1Gi", "limit"),
        ("admission.pods.serviceAccounts={a*}", "/admission/pods/serviceAccounts/0"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(helm: str, setting: str, want_field: str) -> None:
    run = render(helm, "--set", setting)
    assert run.returncode != 0
    assert want_field in run.stderr


def test_a_list_that_is_set_to_null_is_an_empty_one_in_the_rules(helm: str) -> None:
    empty = ("pods.images", "pods.serviceAccounts", "documents.secrets")
    found = documents(helm, *(f"--set=admission.{name}=null" for name in empty))
    policies = [each for each in found if each["kind"] == "ValidatingAdmissionPolicy"]
    for variable in (one for each in policies for one in each["spec"]["variables"]):
        assert "null" not in variable["expression"], variable["name"]


def test_a_catalog_of_ones_own_takes_the_place_of_the_charts(helm: str) -> None:
    found = documents(
        helm, "--set", "existingToolchains=ours", "--set", "admission.pods.images={registry.example/ml/*}"
    )
    assert [each["metadata"]["name"] for each in found if each["kind"] == "ConfigMap"] == ["enginesmith-operator"]
    assert ("", "configmaps", "watch", "ours") in set(rules(found, "ClusterRole"))
    assert "admission.pods.images" in render(helm, "--set", "existingToolchains=ours").stderr
    run = render(helm, "--values", str(EVERYTHING), "--set", "existingToolchains=ours")
    assert "existingToolchains" in run.stderr
    assert run.returncode != 0


def test_the_dashboards_are_documents_of_grafana_whose_panels_do_not_overlap(helm: str) -> None:
    found = documents(helm, "--values", str(EVERYTHING))
    dashboards = [each for each in found if "grafana_dashboard" in each["metadata"].get("labels", {})]
    assert len(dashboards) == 3
    for dashboard in dashboards:
        (text,) = dashboard["data"].values()
        places = [panel["gridPos"] for panel in json.loads(text)["panels"]]
        cells = [(place["x"] + across, place["y"]) for place in places for across in range(place["w"])]
        assert len(set(cells)) == len(cells)
        assert max(x for x, _ in cells) < 24


def test_an_alert_has_a_link_to_its_section_of_the_runbook_and_may_be_left_out(helm: str) -> None:
    found = documents(helm, "--values", str(EVERYTHING))
    rules = [each for group in one(found, "PrometheusRule")["spec"]["groups"] for each in group["rules"]]
    links = {each["alert"]: each["annotations"]["runbook_url"] for each in rules}
    assert links["EnginesmithOperatorDown"].endswith("/runbook.md#enginesmithoperatordown")
    assert "EnginesmithCallsUnauthenticated" not in links
