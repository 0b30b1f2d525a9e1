"""The Helm chart: what it installs, what it lets the operator do, and which values it refuses.

UPDATE_GOLDEN=1 writes the golden files anew.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from enginesmith_operator.controller.shared.settings import load_settings
from enginesmith_operator.kinds import CONFIG_MAP, KINDS, LEASE
from enginesmith_operator.planning.catalog import read_catalog

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "enginesmith"
HERE = Path(__file__).resolve().parent
EVERYTHING = HERE / "everything.yaml"
NAMESPACE = "enginesmith-system"

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


def rules(found: list[Document], kind: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield (group, resource, verb, name) of the operator's rules; the name is empty for any."""
    for rule in one(found, kind, "enginesmith-operator")["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames", [""]):
                        yield group, resource, verb, name


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
    assert set(rules(found, "Role")) == {
        (LEASE.group, "leases", "get", "enginesmith-operator"),
        (LEASE.group, "leases", "update", "enginesmith-operator"),
        (LEASE.group, "leases", "create", ""),
    }


@pytest.mark.parametrize("values", [(), ("--values", str(EVERYTHING))], ids=["defaults", "everything"])
def test_the_pods_are_restricted(helm: str, values: tuple[str, ...]) -> None:
    spec = one(documents(helm, *values), "Deployment")["spec"]["template"]["spec"]
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
        ("image.digest=latest", "digest"),
        ("config.worker=3", "worker"),
        ("config.workers=0", "workers"),
        ("config.nodeGrace=soon", "nodeGrace"),
        ("config.store.shared=true", "store"),
        ("store.default.pvc.claim=engines", "default"),
        ("toolchains.ort.backend=onnx", "backend"),
        ("toolchains.ort.version=1", "version"),
        ("toolchains.ort.image=runtime:latest", "image"),
        ("networkPolicy.apiServerPorts[0]=0", "apiServerPorts"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(helm: str, setting: str, want_field: str) -> None:
    run = render(helm, "--set", setting)
    assert run.returncode != 0
    assert want_field in run.stderr


def test_a_catalog_of_ones_own_takes_the_place_of_the_charts(helm: str) -> None:
    found = documents(helm, "--set", "existingToolchains=ours")
    assert [each["metadata"]["name"] for each in found if each["kind"] == "ConfigMap"] == ["enginesmith-operator"]
    assert ("", "configmaps", "watch", "ours") in set(rules(found, "ClusterRole"))
    run = render(helm, "--values", str(EVERYTHING), "--set", "existingToolchains=ours")
    assert "existingToolchains" in run.stderr
    assert run.returncode != 0
