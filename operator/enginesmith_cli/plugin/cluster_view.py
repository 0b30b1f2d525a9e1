"""What a plan looks at, read from a cluster as the operator would read it."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from enginesmith_cli.catalog_file import ChartValues, with_catalog, with_toolchains
from enginesmith_cli.observe import nodes_of
from enginesmith_cli.plugin.kubectl import ClusterCallError, Found, Kubectl
from enginesmith_cli.plugin.objects import name_of, namespace_of
from enginesmith_cli.policy_file import PolicyFile, policies_of
from enginesmith_contract.matrix.load import load_matrix
from enginesmith_operator.api.engine_build import BuildPhase
from enginesmith_operator.controller.shared.settings import OperatorSettings
from enginesmith_operator.planning.hardware import read_node
from enginesmith_operator.planning.snapshot import Observed

__all__ = ["context_namespace", "observe_cluster", "read_policies"]

_OPERATOR: Final = "app.kubernetes.io/name=enginesmith,app.kubernetes.io/component=operator"
_CONFIGURATION: Final = "operator.yaml"
_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def context_namespace(kubectl: Kubectl) -> str:
    """Return the namespace that the context names, or in a pod without a kubeconfig the pod's own, as kubectl does."""
    with suppress(ClusterCallError):
        return kubectl.output("config", "view", "--minify", "--output=jsonpath={..namespace}") or "default"
    with suppress(OSError):
        return _POD_NAMESPACE.read_text(encoding="utf-8").strip()
    return "default"


def read_policies(kubectl: Kubectl) -> PolicyFile:
    """Return the policies of the cluster; where they may not be read, say so and return none.

    Raises:
        ClusterCallError: the product is not installed, or no cluster answers.
    """
    try:
        found = replace(kubectl, scope=()).get("enginepolicies.enginesmith.io", "namespaces")
    except ClusterCallError as error:
        if error.reason != "Forbidden":
            raise
        found = Found(items=(), refused=(error.why,))
    if found.refused:
        _say("policies and the labels of namespaces are not all known", found)
    return policies_of(found.items, "the cluster")


def observe_cluster(kubectl: Kubectl, values: Sequence[Path]) -> Observed:
    """Return nodes, toolchains and the engines that are built.

    Args:
        kubectl: reads them.
        values: files of the chart's values; empty: the cluster's own catalog.

    Raises:
        ClusterCallError: nodes cannot be read.
        enginesmith_contract.errors.SpecError: the values have no toolchains.
    """
    everywhere = replace(kubectl, scope=())
    nodes = everywhere.get("nodes").items
    # Without them a node that has only dynamic resource allocation is said to offer no GPU.
    with suppress(ClusterCallError):
        nodes += everywhere.get("resourceslices.resource.k8s.io").items
    settings, data = _configuration(kubectl)
    mapping = settings.labels.merged()
    observed = Observed(
        nodes=tuple(read_node(node, mapping) for node in nodes_of(nodes, "the cluster")),
        node_classes=settings.node_classes,
        engine_keys=_built_keys(kubectl),
        matrix=load_matrix(),
        build_for_absent_gpus=settings.build_for_absent_gpus,
    )
    return with_catalog(observed, ChartValues.read(values)) if values else with_toolchains(observed, data)


def _configuration(kubectl: Kubectl) -> tuple[OperatorSettings, dict[str, str]]:
    """Return the operator's configuration and its catalog, as far as they may be read."""
    anywhere = replace(kubectl, scope=("--all-namespaces",))
    try:
        found = anywhere.get("configmaps", selector=_OPERATOR)
    except ClusterCallError as error:
        _say("the toolchains of the cluster are not known (--values names them)", Found(items=(), refused=(error.why,)))
        return OperatorSettings(), {}
    own: dict[str, Any] = next((one for one in found.items if _CONFIGURATION in (one.get("data") or {})), {})
    if not own:
        _say("there is no configuration of the operator: is its chart installed?", found)
        return OperatorSettings(), {}
    try:
        settings = OperatorSettings.model_validate(yaml.safe_load(own["data"][_CONFIGURATION]), by_name=False)
    except (ValidationError, yaml.YAMLError):
        _say("the operator's configuration is for another version of this program", found)
        settings = OperatorSettings()
    wanted = (settings.catalog.namespace or namespace_of(own), settings.catalog.name)
    catalog = next((one for one in found.items if (namespace_of(one), name_of(one)) == wanted), None)
    if catalog is None:
        there = replace(kubectl, scope=(f"--namespace={wanted[0]}",)).get(f"configmap/{wanted[1]}").items
        catalog = there[0] if there else {}
    return settings, dict(catalog.get("data") or {})


def _built_keys(kubectl: Kubectl) -> frozenset[str]:
    builds = kubectl.get("enginebuilds.enginesmith.io").items
    return frozenset(
        str(((one.get("spec") or {}).get("request") or {}).get("engineKey"))
        for one in builds
        if (one.get("status") or {}).get("phase") == BuildPhase.SUCCEEDED
    )


def _say(what: str, found: Found) -> None:
    print(f"enginesmith: {what}{''.join(f'; {line}' for line in found.refused)}", file=sys.stderr)
