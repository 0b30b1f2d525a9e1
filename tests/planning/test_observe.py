"""What the command line gathers: this machine, a file of nodes, a local model."""

from pathlib import Path

import pytest

from enginesmith_cli.observe import (
    nodes_from_devices,
    observe_model,
    observe_this_machine,
    read_nodes_file,
    with_preparation,
)
from enginesmith_contract.backends import Backend, Hardware
from enginesmith_contract.errors import EnginesmithError, SpecError, StoreError
from enginesmith_contract.store_layout import preparation_pointer
from enginesmith_operator.api.load import load_documents
from enginesmith_operator.planning.desired import preparation_key_of
from enginesmith_operator.planning.eligibility import build_eligibility
from enginesmith_operator.planning.hardware import Presence
from enginesmith_runtime.store.open import open_store

HOST = Hardware(arch="amd64")
L4 = Hardware(product="NVIDIA-L4", compute_capability="8.9", memory_mib=23034, driver="580.95.05")
T4 = Hardware(product="Tesla-T4", compute_capability="7.5", memory_mib=15360, driver="580.95.05")
DATA = Path(__file__).parent / "data"


def test_a_machine_without_gpu_is_one_node_without_gpu() -> None:
    (node,) = nodes_from_devices((), HOST)

    assert (node.name, node.presence, node.arch) == ("this machine", Presence.NONE, "amd64")


def test_equal_gpus_are_one_node_and_other_models_are_another() -> None:
    nodes = nodes_from_devices((L4, T4, L4), HOST)

    assert [(node.name, node.product, node.offers[0].allocatable) for node in nodes] == [
        ("this machine (0)", "NVIDIA-L4", 2),
        ("this machine (1)", "Tesla-T4", 1),
    ]
    assert all(build_eligibility(node).eligible for node in nodes)


def test_this_machine_is_observed_with_what_is_installed(tmp_path: Path) -> None:
    observed = observe_this_machine(str(tmp_path / "store"))

    assert observed.local
    assert observed.nodes
    assert Backend.ONNXRUNTIME in {toolchain.backend for toolchain in observed.toolchains}
    assert observed.engine_keys == frozenset()


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("kind: List\nitems:\n- {kind: Node, metadata: {name: a}}\n- {kind: Node, metadata: {name: b}}\n", ["a", "b"]),
        ("metadata: {name: a}\n---\nmetadata: {name: b, labels: {x: 8, y: , z: true}}\n", ["a", "b"]),
        ('{"items": [{"metadata": {"name": "a"}, "spec": {"podCIDR": "10.0.0.0/24"}}]}', ["a"]),
    ],
)
def test_nodes_are_read_as_kubectl_prints_them(tmp_path: Path, text: str, want: list[str]) -> None:
    file = tmp_path / "nodes.yaml"
    file.write_text(text, encoding="utf-8")

    assert [node.metadata.name for node in read_nodes_file(file)] == want


@pytest.mark.parametrize("text", ["", "just words", "a: [", "metadata: {}", "items: []"])
def test_a_file_without_nodes_is_refused_with_the_command_that_makes_one(tmp_path: Path, text: str) -> None:
    file = tmp_path / "nodes.yaml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(SpecError) as caught:
        read_nodes_file(file)

    assert caught.value.where == str(file)
    assert "kubectl get nodes -o yaml" in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        read_nodes_file(tmp_path / "none.yaml")


def _document(uri: str) -> str:
    head = "apiVersion: enginesmith.io/v1alpha1\nkind: InferenceEngine\nmetadata: {name: cls}\n"
    return f"{head}spec: {{model: {{uri: '{uri}'}}}}\n"


def _fail(error: EnginesmithError) -> None:
    pytest.fail(str(error))


@pytest.mark.slow
def test_a_local_model_is_digested_and_its_shapes_are_known(tmp_path: Path, ocr_models: Path) -> None:
    (engine,) = load_documents(_document("cls.onnx"), where="test")
    observed = observe_this_machine(str(tmp_path / "store"))

    known = observe_model(observed, engine, base=ocr_models, scratch=tmp_path, warn=_fail)

    assert known.source_digest is not None
    assert known.model_facts is not None
    assert [spec.name for spec in known.model_facts.inputs] == ["x"]


@pytest.mark.parametrize(("uri", "want_told"), [("s3://models/cls.onnx", []), ("missing.onnx", ["NotFound"])])
def test_a_model_that_is_elsewhere_or_missing_stays_pending_and_the_missing_one_is_told(
    tmp_path: Path, uri: str, want_told: list[str]
) -> None:
    (engine,) = load_documents(_document(uri), where="test")
    observed = observe_this_machine(str(tmp_path / "store"))

    told: list[EnginesmithError] = []

    known = observe_model(observed, engine, base=tmp_path, scratch=tmp_path, warn=told.append)

    assert known.source_digest is None
    assert [error.reason for error in told] == want_told


def test_a_damaged_preparation_is_an_error_of_the_store(tmp_path: Path) -> None:
    (engine,) = load_documents(_document("s3://models/cls.onnx"), where="test")
    observed = observe_this_machine(str(tmp_path)).model_copy(update={"source_digest": "ab" * 32})
    key = preparation_key_of(engine.spec, observed)
    assert key is not None
    open_store(str(tmp_path)).create_pointer(preparation_pointer(key), b"{}")

    with pytest.raises(StoreError) as caught:
        with_preparation(observed, engine)

    assert caught.value.reason == "PointerUnreadable"
