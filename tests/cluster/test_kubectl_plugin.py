"""`kubectl enginesmith` as a person runs it: kubectl finds the plugin, and the plugin finds the cluster by kubectl."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("operator")]

CPU = {"name": "cpu", "backend": "onnxruntime"}
ABSENT = {"name": "h100", "gpu": {"product": "NVIDIA-H100-80GB-HBM3"}}


def plugin(cluster: Cluster, *words: str) -> CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{cluster.environment['PATH']}"
    return cluster.run("kubectl", "enginesmith", *words, variables={"PATH": path, "NO_COLOR": "1"})


def below(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield tree
    for child in tree["children"]:
        yield from below(child)


def test_the_plugin_draws_explains_and_plans_what_the_cluster_does(
    cluster: Cluster, small_tenant: Tenant, tmp_path: Path
) -> None:
    tenant, here = small_tenant, ("-n", small_tenant.namespace)
    tenant.apply("served", [CPU])
    tenant.apply("refused", [ABSENT])
    tenant.until_ready("served")
    tenant.until(lambda: tenant.condition("refused", "Planned").get("status") == "False", "it is refused")

    want = {(kind, "good") for kind in ("InferenceEngine", "Target", "EngineBuild", "Job", "Pod")}

    def drawn_as_good() -> bool:
        (tree,) = json.loads(plugin(cluster, "status", "served", *here, "-o", "json").stdout)
        return want <= {(one["kind"], one["health"]) for one in below(tree)}

    tenant.until(drawn_as_good, "all is good")
    drawn = plugin(cluster, "status", *here).stdout
    assert f"✓ InferenceEngine {tenant.namespace}/served  Ready" in drawn
    assert "✗ Target h100  Refused" in drawn

    explained = plugin(cluster, "explain", "refused", *here)
    assert explained.returncode == 11
    assert "ProductDiffers" in explained.stdout
    assert "What to do:" in explained.stdout
    assert plugin(cluster, "explain", "served", *here).returncode == 0
    assert "did you mean served?" in plugin(cluster, "explain", "serve", *here).stderr

    file = tmp_path / "engine.yaml"
    file.write_text(yaml.safe_dump(tenant.document("planned", [CPU, ABSENT])))
    planned = plugin(cluster, "plan", "-f", str(file), *here)
    assert planned.returncode == 0, planned.stderr
    assert "onnxruntime" in planned.stdout
    assert "NVIDIA-H100-80GB-HBM3 is asked for" in planned.stdout
    assert "no status" not in plugin(cluster, "status", *here).stdout

    assert '"models":["served"]' in plugin(cluster, "logs", "served", *here).stdout
    assert tenant.target("served", "cpu")["serving"][0] in plugin(cluster, "inspect", "served", *here).stdout


def test_every_command_names_what_it_may_not_read_and_shows_the_rest(cluster: Cluster, small_tenant: Tenant) -> None:
    tenant, here = small_tenant, ("-n", small_tenant.namespace, "--as=reader@example.com")
    tenant.apply("ocr", [CPU])
    assert "you may not do this" in plugin(cluster, "status", *here).stderr
    tenant.kubectl("create", "role", "engines", "--verb=get,list", "--resource=inferenceengines.enginesmith.io")
    tenant.kubectl("create", "rolebinding", "engines", "--role=engines", "--user=reader@example.com")
    for verb in ("get", "list"):
        cluster.until_allowed("reader@example.com", verb, "inferenceengines.enginesmith.io", tenant.namespace)
    for words in (("status", "ie/ocr"), ("explain", "ie/ocr"), ("inspect", "ocr"), ("logs", "ocr")):
        done = plugin(cluster, *words, *here)
        assert "not shown: " in done.stderr, words
        assert "enginebuilds.enginesmith.io is forbidden" in done.stderr, words


def test_gc_deletes_only_what_it_lists_and_only_when_asked_to(cluster: Cluster, namespace: str) -> None:
    here = ("-n", namespace)
    orphan = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "left",
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "enginesmith",
                "app.kubernetes.io/component": "preparation",
                "enginesmith.io/engine": "gone",
            },
        },
        "spec": {
            "suspend": True,
            "template": {
                "spec": {"restartPolicy": "Never", "containers": [{"name": "none", "image": "example.invalid/none"}]}
            },
        },
    }
    other = orphan | {"metadata": {"name": "foreign", "namespace": namespace}}
    cluster.apply(orphan, other)
    listed = plugin(cluster, "gc", *here)
    assert "left" in listed.stdout
    assert "foreign" not in listed.stdout
    assert cluster.kubectl("get", "jobs", "-o=name", *here).split() == ["job.batch/foreign", "job.batch/left"]
    assert "deleted Job" in plugin(cluster, "gc", "--yes", *here).stdout
    cluster.kubectl("wait", "job/left", "--for=delete", "--timeout=300s", *here)
    assert cluster.kubectl("get", "jobs", "-o=name", *here).split() == ["job.batch/foreign"]


def test_without_rights_the_plugin_says_which_role_is_missing(cluster: Cluster, namespace: str) -> None:
    done = plugin(cluster, "status", "-n", namespace, "--as", "stranger")
    assert done.returncode == 33
    assert 'User "stranger" cannot list' in done.stderr
    assert "ask for the role `view`" in done.stderr.lower()
