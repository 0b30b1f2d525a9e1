"""The commands of pages that need a cluster, as they are printed and in their order."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from tests.chart.pages import DOCS, blocks, named_files, run_page
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant, new_tenant, s3_secret
from tests.cluster.installation import ROOT, SYSTEM, chart_values

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended]

HERE = "tests/cluster/test_cluster_pages.py"
CPU = {"name": "cpu", "backend": "onnxruntime"}
GUIDES = ("README.md", "baidu-cce.md", "eks.md", "gke.md")
# What a page says is refused ends with this code.
OR_REFUSED = "0|11"


class Pages:
    """A folder as the pages suppose it, whose commands reach the cluster."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        for name in ("charts", ".venv"):
            (folder / name).symlink_to(ROOT / name)
        values = chart_values(cluster)
        images = {name: values.pop(name) for name in ("image", "toolchains")}
        (folder / ".work/images").mkdir(parents=True)
        (folder / ".work/images/values.yaml").write_text(json.dumps(images))
        (folder / "values.yaml").write_text(json.dumps(values))

    def write(self, name: str, document: object) -> None:
        """Write a file that a page's commands read."""
        (self.folder / name).write_text(document if isinstance(document, str) else yaml.safe_dump(document))

    def run(self, page: str, begin: str = "", *, ends: str = "0") -> dict[str, str]:
        """Run the commands of a page of `docs`."""
        path = Path(sys.executable).parent

        def shell(program: str) -> CompletedProcess[str]:
            return self.cluster.run("bash", "-c", program, variables=self.cluster.s3)

        return run_page(DOCS / page, HERE, shell, f"cd '{self.folder}'; PATH='{path}':$PATH\n{begin}", ends=ends)


@pytest.fixture
def pages(cluster: Cluster, tmp_path: Path) -> Pages:
    """A folder of the test's own."""
    return Pages(cluster, tmp_path)


def _without(cluster: Cluster, *objects: str) -> Iterator[None]:
    def delete() -> None:
        for one in objects:
            cluster.kubectl("delete", one, "--ignore-not-found", "--timeout=300s")

    delete()
    yield
    delete()


@pytest.fixture
def without_vision(cluster: Cluster) -> Iterator[None]:
    """A cluster without what the pages on services make."""
    yield from _without(cluster, "namespace/vision", "secret/cls-tokens")


@pytest.fixture
def without_policy(cluster: Cluster) -> Iterator[None]:
    """A cluster without what the page on policies makes."""
    yield from _without(cluster, "enginepolicy/vision", "namespace/vision-a")


def _engine(tenant: Tenant, name: str) -> dict[str, Any]:
    document = tenant.document(name, [CPU])
    del document["metadata"]["namespace"]
    return document


@pytest.mark.usefixtures("operator", "hardware", "without_vision")
def test_the_pages_lead_from_a_plan_to_a_service_that_changes(
    cluster: Cluster, pages: Pages, classifier: dict[str, Any]
) -> None:
    tenant = Tenant(cluster=cluster, namespace="vision", model=classifier)
    pages.write("engine.yaml", _engine(tenant, "resnet50"))
    pages.run("installation.md")
    with new_tenant(cluster, "vision", classifier):
        tenant.until_ready("resnet50")
        pages.run("troubleshooting.md", ends=OR_REFUSED)  # a warning of a pod needs attention, too

        pages.write("engine.yaml", _engine(tenant, "direction"))
        pages.run("tutorials/data-scientist.md")
        tenant.until_ready("direction")
        git = "git init -q . && git add engine.yaml && git -c user.name=a -c user.email=a@example.com commit -q -m"
        pages.run("tutorials/service-owner.md", f"{git} first; echo >> engine.yaml; {git} second")

        pages.run("planning.md")
        pages.run("serving.md")
        pages.run("signatures.md", "openssl ecparam -name prime256v1 -genkey -noout -out builders-2026.pem")


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_s_commands_read_the_nodes_and_plan_with_its_values(
    cluster: Cluster, pages: Pages, classifier: dict[str, Any], guide: str
) -> None:
    tenant = Tenant(cluster=cluster, namespace="vision", model=classifier)
    pages.write("engine.yaml", _engine(tenant, "direction"))
    for name, text in named_files(DOCS / f"guides/{guide}"):
        pages.write(name, text)
    pages.run(f"guides/{guide}", ends=OR_REFUSED)


@pytest.mark.usefixtures("operator", "without_policy")
def test_a_policy_refuses_and_warns_as_its_page_shows(
    cluster: Cluster, pages: Pages, classifier: dict[str, Any]
) -> None:
    policy = yaml.safe_load(next(one.text for one in blocks(DOCS / "policies.md") if "kind: EnginePolicy" in one.text))
    cluster.apply(policy)
    metadata = {"name": "vision-a", "labels": {"tier": "production"}}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    tenant = Tenant(cluster=cluster, namespace="vision-a", model=classifier)
    place = {"options": {"endpoint": "http://s3.storage:9000"}, "sha256": "a" * 64, "signature": "model.sig"}
    precision = {"default": "int8", "calibration": {"source": "s3://models/samples/", "digest": "b" * 64}}
    targets = [{"name": "t4", "gpu": {"product": "Tesla-T4"}}]
    model = {"uri": "s3://models/cls.onnx"} | place
    pages.write("engine.yaml", tenant.document("ocr", targets, model=model, precision=precision))
    policy["spec"]["gpuProducts"] = ["NVIDIA-A100-SXM-80GB"]
    pages.write("policy.yaml", policy)
    # The API server sees a policy a moment after it was written.
    refused = "until kubectl apply --dry-run=server -f engine.yaml 2>&1 | grep -q EnginePolicy; do sleep 0.2; done"
    pages.run("policies.md", f"kubectl get nodes -o yaml > nodes.yaml; timeout 60 bash -c '{refused}'", ends=OR_REFUSED)


@pytest.mark.usefixtures("hardware")
def test_nodes_stop_and_come_back_as_the_pages_show(cluster: Cluster, pages: Pages) -> None:
    pages.run("development-cluster.md", f"cd '{ROOT}'")
    taints = [{"key": "test", "effect": "NoSchedule"}]
    cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "jetson-1"}, "spec": {"taints": taints}})
    try:
        printed = pages.run("guides/edge.md")["kubectl get nodes -L nvidia.com/gpu.product,kubernetes.io/arch"]
    finally:
        cluster.kubectl("delete", "node", "jetson-1")
    assert "Orin" in printed


@pytest.mark.usefixtures("sole_operator")
def test_an_installation_and_an_upgrade_succeed_as_printed(cluster: Cluster, pages: Pages) -> None:
    cluster.apply(s3_secret(cluster, SYSTEM))
    usual = (pages.folder / "values.yaml").read_text()
    pages.write("values.yaml", json.dumps(chart_values(cluster)))
    try:
        pages.run("../charts/enginesmith/README.md", f"helm uninstall enginesmith -n {SYSTEM} --wait")
        pages.write("values.yaml", usual)
        pages.run("upgrade.md")
    finally:
        cluster.kubectl("-n", SYSTEM, "delete", "secret", "s3", "--ignore-not-found")
