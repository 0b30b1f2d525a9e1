"""The operator's metrics are those that docs/observability.md lists, on both replicas, and one of them leads."""

import re
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant
from tests.cluster.installation import SYSTEM

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("operator")]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "observability.md"
OPERATORS = "--selector=app.kubernetes.io/component=operator"
CPU = {"name": "cpu", "backend": "onnxruntime"}
Samples = dict[str, list[tuple[dict[str, str], float]]]


def documented() -> dict[str, set[str]]:
    """The metrics of the table, with their labels; a name that begins with `_` continues the row's first one."""
    table = DOCUMENT.read_text(encoding="utf-8").partition("### The operator")[2].partition("\n### ")[0]
    found: dict[str, set[str]] = {}
    for line in table.splitlines():
        names = re.findall(r"`(\w+)`", line.split("|")[1]) if line.startswith("| `") else []
        for name in names:
            whole = name if name.startswith("enginesmith_") else names[0].rpartition("_")[0] + name
            found[whole] = set(re.findall(r"\w+", line.split("|")[2]))
    return found


def scraped(address: str) -> Samples:
    """All samples of one replica, by their metric's name; when a counter began is the library's own addition."""
    with urllib.request.urlopen(f"http://{address}:8080/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        if family.name.endswith("_created"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = [(dict(sample.labels), sample.value) for sample in family.samples]
    return found


def replicas(cluster: Cluster) -> list[Samples]:
    """The samples of the replica that leads, and then of the other."""
    pods = cluster.get("-n", SYSTEM, "pods", OPERATORS)["items"]
    every = [scraped(one["status"]["podIP"]) for one in pods if "deletionTimestamp" not in one["metadata"]]
    return sorted(every, key=lambda samples: -samples["enginesmith_leader"][0][1])


def one_leads(cluster: Cluster) -> list[Samples] | None:
    """The samples of both replicas where one of them leads, which it does not for a moment after it was replaced."""
    found = replicas(cluster)
    return found if [one["enginesmith_leader"][0][1] for one in found] == [1.0, 0.0] else None


def test_what_the_documentation_lists_is_what_a_leader_shows(cluster: Cluster, tenant: Tenant) -> None:
    tenant.apply("cls", [CPU])
    tenant.until_ready("cls")

    leader, follower = tenant.until(lambda: one_leads(cluster), "one of two replicas leads")

    want = documented()
    assert set(leader) == set(want)
    for name, labels in want.items():
        shown = [set(each) - {"le"} for each, _ in leader[name]]
        assert shown, name
        assert all(one == labels for one in shown), name
    ready = {labels["ready"]: value for labels, value in leader["enginesmith_engines"]}
    assert ready["True"] >= 1
    assert {labels["result"] for labels, _ in leader["enginesmith_builds_total"]} >= {"succeeded"}
    # The other one sees all and writes nothing.
    assert follower["enginesmith_objects"] != []
    assert follower["enginesmith_api_writes_total"] == []
