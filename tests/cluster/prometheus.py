"""A real Prometheus that finds its targets as the chart's monitors say, with the chart's rules and dashboards."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.cluster.access import Cluster
from tests.cluster.installation import ROOT, SYSTEM
from tests.ports import free_port

__all__ = ["Monitoring", "Prometheus", "render_monitoring", "running_prometheus"]

Document = dict[str, Any]
_VALUES = {
    "metrics": {name: {"enabled": True} for name in ("serviceMonitor", "podMonitor", "prometheusRule", "dashboards")}
}
_META = "__meta_kubernetes"


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """What the chart renders for Prometheus and Grafana."""

    service_monitor: Document
    pod_monitor: Document
    groups: list[Document]
    dashboards: list[Document]

    def alerts(self) -> dict[str, str]:
        """Return the expression of each alert."""
        return {rule["alert"]: rule["expr"] for group in self.groups for rule in group["rules"]}

    def queries(self, namespace: str) -> dict[str, str]:
        """Return the query of each panel and variable, as Grafana would send it for a namespace."""
        placeholders = {"$__rate_interval": "30s", "$__range": "1h", "$namespace": namespace, "$model": ".*"}
        found: dict[str, str] = {}
        for dashboard in self.dashboards:
            for panel in dashboard["panels"]:
                for target in panel["targets"]:
                    found[f"{dashboard['title']} / {panel['title']} / {target['refId']}"] = target["expr"]
            for variable in dashboard["templating"]["list"]:
                values = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
                if values is not None:
                    found[f"{dashboard['title']} / {variable['name']}"] = f"group by ({values[2]}) ({values[1]})"
        for word, value in placeholders.items():
            found = {where: query.replace(word, value) for where, query in found.items()}
        return found


@dataclass(frozen=True, kw_only=True)
class Prometheus:
    """Its API."""

    url: str

    def query(self, expression: str) -> list[Document]:
        """Return the series of an expression at this moment."""
        answer = self._get("query", query=expression)
        assert answer["resultType"] in {"vector", "scalar"}
        found: list[Document] = answer["result"]
        return found

    def value(self, expression: str) -> float:
        """Return the value of an expression that has one series; 0 where it has none."""
        series = self.query(expression)
        return float(series[0]["value"][1]) if series else 0.0

    def firing(self) -> dict[str, Document]:
        """Return the alerts that fire, by name."""
        alerts = self._get("alerts")["alerts"]
        return {one["labels"]["alertname"]: one for one in alerts if one["state"] == "firing"}

    def healthy_targets(self, *namespaces: str) -> dict[str, int]:
        """Return how many targets in some namespaces answer, by job."""
        series = self.query(f'sum by (job) (up{{namespace=~"{"|".join(namespaces)}"}})')
        return {one["metric"]["job"]: int(one["value"][1]) for one in series}

    def _get(self, call: str, **arguments: str) -> Document:
        document = httpx.get(f"{self.url}/api/v1/{call}", params=arguments, timeout=60).json()
        assert document["status"] == "success", document
        found: Document = document["data"]
        return found


def tool(name: str) -> str:
    """Return the path of a program that `hack/tool` builds."""
    return subprocess.check_output([ROOT / "hack/tool", name], text=True).strip()


def render_monitoring() -> Monitoring:
    """Return what the chart renders with everything on, as it is installed."""
    chart = str(ROOT / "charts/enginesmith")
    command = [tool("helm"), "template", "enginesmith", chart, "--namespace", SYSTEM]
    done = subprocess.run(
        [*command, "--values", "-"], input=yaml.safe_dump(_VALUES), capture_output=True, text=True, check=True
    )
    documents = [one for one in yaml.safe_load_all(done.stdout) if one]
    kinds = {one["kind"]: one for one in documents}
    return Monitoring(
        service_monitor=kinds["ServiceMonitor"]["spec"],
        pod_monitor=kinds["PodMonitor"]["spec"],
        groups=kinds["PrometheusRule"]["spec"]["groups"],
        dashboards=[
            json.loads(text)
            for one in documents
            if "grafana_dashboard" in one["metadata"].get("labels", {})
            for text in one["data"].values()
        ],
    )


@contextmanager
def running_prometheus(cluster: Cluster, monitoring: Monitoring, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus on this machine, which reaches pods by their addresses; alerts fire after a second."""
    hurried = [{**group, "rules": [{**rule, "for": "1s"} for rule in group["rules"]]} for group in monitoring.groups]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": hurried}))
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": _scrapes(cluster, monitoring),
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    checked = subprocess.run(
        [tool("promtool"), "check", "config", folder / "prometheus.yaml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    port = free_port()
    command = [tool("prometheus"), f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(lambda: process.poll() is not None or _answers(f"{url}/-/ready"))
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        yield Prometheus(url=url)
    finally:
        process.terminate()
        process.wait()


def _scrapes(cluster: Cluster, monitoring: Monitoring) -> list[Document]:
    """Return the monitors as Prometheus reads them: what the Prometheus operator makes of them."""
    access = {"kubeconfig_file": cluster.environment["KUBECONFIG"]}
    (of_service,), (of_pods,) = monitoring.service_monitor["endpoints"], monitoring.pod_monitor["podMetricsEndpoints"]
    service_labels = monitoring.service_monitor["selector"]["matchLabels"]
    pod_labels = monitoring.pod_monitor["selector"]["matchLabels"]
    assert monitoring.pod_monitor["namespaceSelector"] == {"any": True}
    return [
        {
            "job_name": "operator",
            "metrics_path": of_service["path"],
            "kubernetes_sd_configs": [{"role": "endpointslice", "namespaces": {"names": [SYSTEM]}, **access}],
            "relabel_configs": [
                *_keep("service_label", service_labels),
                _keep_one("endpointslice_port_name", of_service["port"]),
                *_named(of_service),
            ],
        },
        {
            "job_name": "servers",
            "metrics_path": of_pods["path"],
            "kubernetes_sd_configs": [{"role": "pod", **access}],
            "relabel_configs": [
                *_keep("pod_label", pod_labels),
                _keep_one("pod_container_port_name", of_pods["port"]),
                _keep_one("pod_phase", "Running"),
                *_named(of_pods),
            ],
        },
    ]


def _keep(kind: str, labels: Mapping[str, str]) -> Iterator[Document]:
    for name, value in labels.items():
        yield _keep_one(f"{kind}_{re.sub('[^a-zA-Z0-9]', '_', name)}", value)


def _keep_one(name: str, value: str) -> Document:
    return {"action": "keep", "source_labels": [f"{_META}_{name}"], "regex": value}


def _named(endpoint: Document) -> Iterator[Document]:
    yield {"source_labels": [f"{_META}_namespace"], "target_label": "namespace"}
    yield {"source_labels": [f"{_META}_pod_name"], "target_label": "pod"}
    for relabeling in endpoint["relabelings"]:
        yield {"target_label": relabeling["targetLabel"], "replacement": relabeling["replacement"]}


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=60).is_success
    except httpx.TransportError:
        return False


def _wait(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.2)
