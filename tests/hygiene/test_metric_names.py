"""Dashboards, alerts and documentation name metrics and labels that the operator and the server have."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.server.certificates import Authority, mount, mount_tls

from enginesmith_contract.serve_request import ClientLimits
from enginesmith_operator.controller.shared.metrics import Metrics
from enginesmith_runtime.server.clients import Clients
from enginesmith_runtime.server.metrics import ModelCollector
from enginesmith_runtime.server.repository import Repository
from enginesmith_runtime.server.transport.tls import Certificates
from enginesmith_runtime.server.transport.tokens import Tokens

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "charts" / "enginesmith" / "files"
ALERTS = [rule for group in yaml.safe_load((FILES / "alerts.yaml").read_text()) for rule in group["rules"]]
DASHBOARDS = yaml.safe_load((FILES / "dashboards.yaml").read_text())
OF_PROMETHEUS = {"job", "namespace", "pod", "le"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",), "gauge": ("",)}
OTHERS = {"enginesmith_cli", "enginesmith_contract", "enginesmith_operator", "enginesmith_runtime"}
"""Packages: words of the same form."""


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The type of each metric, by the name of the family; a name that both processes have may have several."""
    folder = tmp_path_factory.mktemp("access")
    mount(folder / "tokens", {"one": "token-of-one"})
    certificates = Certificates(mount_tls(folder / "tls", Authority.named("it").issue()))
    server = ModelCollector(Repository(()), certificates, Tokens(folder / "tokens"), Clients(ClientLimits()))
    found: dict[str, set[str]] = {}
    for family in (*server.collect(), *Metrics().registry.collect()):
        found.setdefault(family.name, set()).add(family.type)
    return found


@pytest.fixture(scope="module")
def series(families: dict[str, set[str]]) -> set[str]:
    """The names that Prometheus stores."""
    return {name + suffix for name, types in families.items() for one in types for suffix in SUFFIXES[one]}


def read_queries() -> Iterator[tuple[str, str]]:
    for rule in ALERTS:
        yield rule["alert"], rule["expr"]
    for dashboard in DASHBOARDS.values():
        for panel in dashboard["panels"]:
            for query in panel["queries"]:
                yield panel["title"], query["expr"]
        for variable in dashboard.get("variables", ()):
            yield variable["name"], variable["query"]


QUERIES = list(read_queries())


@pytest.mark.parametrize(("where", "query"), QUERIES)
def test_a_query_names_metrics_that_there_are(series: set[str], where: str, query: str) -> None:
    named = set(re.findall(r"enginesmith_\w+", query))
    assert named | set(re.findall(r"\bup\b", query)), where
    assert named <= series


def documented_labels() -> dict[str, set[str]]:
    text = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`enginesmith_[^|]*)\|([^|]*)\|", text, re.MULTILINE)
    found: dict[str, set[str]] = {}
    for names, labels in rows:
        for name in re.findall(r"`(\w+)`", names):
            found.setdefault(name, set()).update(re.findall(r"\w+", labels))
    return found


@pytest.mark.parametrize(("where", "query"), QUERIES)
def test_a_query_names_labels_that_its_metrics_have(where: str, query: str) -> None:
    known = documented_labels()
    metrics = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"enginesmith_\w+", query)}
    have = OF_PROMETHEUS.union(*(known.get(name, set()) for name in metrics))
    grouped = {label for labels in re.findall(r"\bby \(([^)]*)\)", query) for label in re.findall(r"\w+", labels)}
    selected = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", query))
    assert grouped | selected <= have, where


def test_the_page_has_each_metric_and_no_other(families: dict[str, set[str]]) -> None:
    documented = set(documented_labels())
    suffix = {"counter": "_total", "info": "_info"}
    names = {name + suffix.get(one, "") for name, types in families.items() for one in types}
    assert documented == names


def test_pages_name_metrics_that_there_are(families: dict[str, set[str]], series: set[str]) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        named = set(re.findall(r"`(enginesmith_[a-z_]+)(?:\{\w[^`]*)?`", page.read_text(encoding="utf-8")))
        assert named - OTHERS <= series | set(families), page


def test_each_alert_says_what_it_is_and_has_a_section_of_the_runbook() -> None:
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == [rule["alert"] for rule in ALERTS]
    for rule in ALERTS:
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]


def test_dashboards_have_titles_of_their_own() -> None:
    def titles(dashboard: Any) -> list[str]:
        return [panel["title"] for panel in dashboard["panels"]]

    for dashboard in DASHBOARDS.values():
        assert len(set(titles(dashboard))) == len(titles(dashboard))
