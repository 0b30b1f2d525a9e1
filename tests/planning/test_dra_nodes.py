"""Nodes whose GPUs dynamic resource allocation hands out, alone or together with the device plugin."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from enginesmith_cli.observe import read_nodes_file
from enginesmith_operator.planning.eligibility import build_eligibility, serve_eligibility
from enginesmith_operator.planning.hardware import NodeFacts, Presence, read_node
from enginesmith_operator.planning.label_mapping import load_label_mapping

GFD = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.count": "8"}


def _facts(
    folder: Path, labels: Mapping[str, str], resources: Mapping[str, str], *, slices: bool = True, node: str = "gpu-1"
) -> NodeFacts:
    documents: list[object] = [
        {
            "kind": "Node",
            "metadata": {"name": "gpu-1", "labels": dict(labels)},
            "status": {"capacity": dict(resources), "allocatable": dict(resources)},
        }
    ]
    if slices:
        devices = [{"name": f"gpu-{number}", "attributes": {"type": {"string": "gpu"}}} for number in range(8)]
        documents += [
            {"kind": "ResourceSlice", "spec": {"driver": driver, "nodeName": node, "devices": devices}}
            for driver in ("gpu.nvidia.com", "compute-domain.nvidia.com")
        ]
    path = folder / "nodes.yaml"
    path.write_text(yaml.safe_dump({"kind": "List", "items": documents}), encoding="utf-8")
    (read,) = read_nodes_file(path)
    return read_node(read, load_label_mapping())


def test_a_node_with_dra_alone_says_so_and_what_helps(tmp_path: Path) -> None:
    for resources in ({}, {"nvidia.com/gpu": "0"}):
        (reason,) = serve_eligibility(_facts(tmp_path, GFD, resources)).reasons

        assert reason.rule == "NothingAllocatable"
        assert "handed out by dynamic resource allocation (DRA) alone" in reason.found
        assert "ResourceSlices of gpu.nvidia.com list 8 of its devices" in reason.found
        assert "let the NVIDIA device plugin hand out this node's GPUs as nvidia.com/gpu" in reason.wanted


def test_a_node_without_any_label_shows_its_gpus_by_dra(tmp_path: Path) -> None:
    facts = _facts(tmp_path, {}, {})

    assert facts.presence is Presence.NVIDIA
    unknown, nothing = serve_eligibility(facts).reasons
    assert (unknown.rule, nothing.rule) == ("ProductUnknown", "NothingAllocatable")
    assert "its NVIDIA GPU (ResourceSlices of gpu.nvidia.com list 8 of its devices)" in unknown.found


def test_a_node_with_dra_and_the_device_plugin_is_served_by_the_plugin(tmp_path: Path) -> None:
    facts = _facts(tmp_path, GFD | {"nvidia.com/dra-kubelet-plugin": "true"}, {"nvidia.com/gpu": "8"})

    assert build_eligibility(facts).eligible


def test_the_label_of_the_driver_s_nodes_is_enough_where_no_plugin_ever_registered(tmp_path: Path) -> None:
    labelled = GFD | {"nvidia.com/dra-kubelet-plugin": "true"}

    (reason,) = serve_eligibility(_facts(tmp_path, labelled, {}, slices=False)).reasons
    assert "alone: nvidia.com/dra-kubelet-plugin=true, no nvidia.com/gpu" in reason.found


def test_slices_of_another_node_say_nothing_of_this_one(tmp_path: Path) -> None:
    facts = _facts(tmp_path, GFD, {}, node="gpu-2")

    assert facts.dra == ""
    (reason,) = serve_eligibility(facts).reasons
    assert reason.found == "kubelet has no resource nvidia.com/gpu"
    assert "dynamic resource allocation (DRA) alone hands out (kubectl get resourceslices)" in reason.wanted


def test_a_node_whose_plugin_counts_no_gpu_may_be_one_of_dra(tmp_path: Path) -> None:
    (reason,) = serve_eligibility(_facts(tmp_path, GFD, {"nvidia.com/gpu": "0"}, slices=False)).reasons

    assert reason.found == "the node has GPU labels, but nvidia.com/gpu is 0 of 0"
    assert "GPUs that DRA alone hands out (kubectl get resourceslices)" in reason.wanted
