"""What is asked before and while a plan is loaded, on fakes of NVML, CUDA and the library."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from tests.engines.fake_cuda import CUresult, FakeBindings, FakeDevice, FakeDriver
from tests.engines.fake_nvinfer import FakeEngine, FakeLibrary, FakeLog, FakeNetwork

from enginesmith_contract import environment
from enginesmith_contract.backends import Backend, Hardware, Toolchain
from enginesmith_contract.errors import DeviceFailedError, EngineRefusedError, SpecError
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_contract.manifest import Manifest, Timings
from enginesmith_contract.preparation import Batching
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.store_layout import StoredFile
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_contract.verification import Verification, VerificationStatus
from enginesmith_runtime.engines.nvinfer import loader as nvinfer_loader
from enginesmith_runtime.engines.nvinfer.description import refuse_unless_described
from enginesmith_runtime.engines.nvinfer.execution import NvInferEngine
from enginesmith_runtime.engines.refusal import find_cuda_device, refuse_mislabelled

F32 = np.dtype(np.float32)
H100 = Hardware(
    product="NVIDIA-H100-80GB-HBM3",
    compute_capability="9.0",
    memory_mib=81559,
    multiprocessors=132,
    driver="580.159.04",
)
A30_SLICE = Hardware(
    product="NVIDIA-A30", mig_profile="1g.6gb", compute_capability="8.0", memory_mib=6000, multiprocessors=14
)
PLAN = b"a plan of 4096 bytes".ljust(4096)


class Node(SimpleNamespace):
    """A machine: device (CUDA's), listed (NVML's), load."""

    device: FakeDevice
    listed: list[Hardware]
    load: Callable[..., NvInferEngine]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Node:
    """Return a node with one H100; `node.load(**options)` loads the plan there."""
    device = FakeDevice()
    network = FakeNetwork(
        inputs={"x": (F32, (2,))},
        outputs={"y": F32},
        compute=lambda values: {"y": values["x"] + 1},
        shapes=lambda shapes, _values: {"y": shapes["x"]},
    )
    listed = [H100]
    for name, double in (("pycuda.driver", FakeDriver(device)), ("cuda.bindings.driver", FakeBindings(device))):
        monkeypatch.setitem(sys.modules, name.split(".", maxsplit=1)[0], ModuleType(name.split(".", maxsplit=1)[0]))
        monkeypatch.setitem(sys.modules, name.rpartition(".")[0], ModuleType(name.rpartition(".")[0]))
        monkeypatch.setitem(sys.modules, name, double)
    monkeypatch.setattr(nvinfer_loader, "require_driver", lambda _failure: None)
    monkeypatch.setattr(nvinfer_loader, "detect_devices", lambda: tuple(listed))
    path = tmp_path / "model.plan"
    path.write_bytes(PLAN)
    loader = nvinfer_loader.NvInferLoader(cast("Any", FakeLibrary(device, network, PLAN)))

    def load(**options: str) -> NvInferEngine:
        return loader.load(_manifest(network), tmp_path, options)

    return Node(device=device, listed=listed, load=load, path=path)


def _manifest(network: FakeNetwork) -> Manifest:
    key_inputs = EngineKeyInputs(
        preparation_key="0" * 64,
        backend=Backend.TENSORRT,
        backend_version="10.6.0.26",
        gpu_product=H100.product,
    )
    return Manifest(
        engine_key=engine_key(key_inputs),
        key_inputs=key_inputs,
        source_digest="0" * 64,
        engine_digest="0" * 64,
        files=(StoredFile(path="model.plan", digest="0" * 64, size_bytes=len(PLAN)),),
        inputs=tuple(
            TensorSpec(name=name, dtype=DType.FP32, shape=shape) for name, (_, shape) in network.inputs.items()
        ),
        outputs=tuple(TensorSpec(name=name, dtype=DType.FP32, shape=(2,)) for name in network.outputs),
        profiles=(),
        batching=Batching(proved=False),
        toolchain=Toolchain(name="tensorrt", backend=Backend.TENSORRT, version="10.6.0.26"),
        hardware=H100,
        timings=Timings(build_seconds=0.0),
        verification=Verification(status=VerificationStatus.NOT_RUN),
        created_at="",
    )


@pytest.mark.parametrize(
    ("promised", "want_words"),
    [(4, None), (8, "[1, 2] / [2, 2] / [8, 2] in the manifest, and [1, 2] / [2, 2] / [4, 2] in the engine")],
)
def test_a_manifest_that_promises_more_than_its_plan_is_refused(promised: int, want_words: str | None) -> None:
    network = FakeNetwork(
        inputs={"x": (F32, (-1, 2))},
        outputs={"y": F32},
        compute=lambda values: {"y": values["x"]},
        shapes=lambda shapes, _values: {"y": shapes["x"]},
        profiles=({"x": ((1, 2), (2, 2), (4, 2))},),
    )
    shapes = ShapeRange(min=(1, 2), opt=(2, 2), max=(promised, 2))
    manifest = _manifest(network).model_copy(update={"profiles": (Profile(inputs={"x": shapes}),)})
    engine = FakeEngine(network, FakeDevice(), FakeLog())
    if want_words is None:
        refuse_unless_described(manifest, engine)
        return
    with pytest.raises(EngineRefusedError) as refused:
        refuse_unless_described(manifest, engine)
    assert refused.value.reason == "ManifestDiffers"
    assert want_words in refused.value.why


def test_a_manifest_with_a_tensor_of_another_plan_is_refused(node: Node) -> None:
    network = FakeNetwork(
        inputs={"x": (F32, (2,)), "mask": (F32, (2,))},
        outputs={"y": F32},
        compute=lambda values: {"y": values["x"]},
        shapes=lambda shapes, _values: {"y": shapes["x"]},
    )
    manifest = _manifest(network)
    engine = node.load()
    with pytest.raises(EngineRefusedError) as refused:
        refuse_unless_described(manifest, engine.library.engine)
    assert (refused.value.reason, "'mask'" in refused.value.why) == ("ManifestDiffers", True)
    engine.close()


def test_a_gpu_without_room_for_a_context_is_full_not_absent(node: Node) -> None:
    node.device.free = 0
    with pytest.raises(EngineRefusedError) as refused:
        node.load()
    assert refused.value.reason == "OutOfMemory"


def test_a_plan_is_loaded_runs_and_says_what_it_holds(node: Node) -> None:
    engine = node.load()
    with engine.open_instance() as instance:
        x = np.array([1, 2], np.float32)
        for _ in range(2):
            answer = instance.infer({"x": x}, profile=0, outputs=("y",))
            np.testing.assert_array_equal(answer["y"], x + 1)
    assert engine.device_memory.weights == len(PLAN)
    engine.close()
    assert (node.device.calls["release"], node.device.pushed) == (1, 0)


@pytest.mark.parametrize("label", ["NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-80GB-HBM3-SHARED", "H100-80GB-HBM3", "", None])
def test_a_label_that_tells_the_truth_or_is_absent_is_no_matter(
    node: Node, monkeypatch: pytest.MonkeyPatch, label: str | None
) -> None:
    monkeypatch.delenv(environment.NODE_PRODUCT, raising=False)
    if label is not None:
        monkeypatch.setenv(environment.NODE_PRODUCT, label)
    node.load().close()


def test_a_mislabelled_node_is_found_before_cuda_is_asked(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.NODE_PRODUCT, "NVIDIA-A100-SXM4-80GB")
    with pytest.raises(EngineRefusedError) as refusal:
        node.load()
    assert refusal.value.reason == "NodeMislabelled"
    assert "the node's label is NVIDIA-A100-SXM4-80GB, and the GPU is NVIDIA-H100-80GB-HBM3" in str(refusal.value)
    assert not node.device.calls


@pytest.mark.parametrize(
    ("label", "want"),
    [
        ("NVIDIA-A30-MIG-1g.6gb", None),
        ("NVIDIA-A30", None),
        ("NVIDIA-A30-MIG-2g.12gb", "NodeMislabelled"),
        ("NVIDIA-A30-MIG-2g.12gb-SHARED", "NodeMislabelled"),
    ],
)
def test_a_slice_s_label_must_name_its_profile_if_it_names_one(label: str, want: str | None) -> None:
    if want is None:
        refuse_mislabelled(label, A30_SLICE)
        return
    with pytest.raises(EngineRefusedError) as refusal:
        refuse_mislabelled(label, A30_SLICE)
    assert refusal.value.reason == want
    assert "1g.6gb" in refusal.value.why


def test_cuda_s_first_device_is_found_among_those_that_nvml_lists_in_its_own_order() -> None:
    assert find_cuda_device("NVIDIA H100 80GB HBM3", "9.0", (A30_SLICE, H100)) is H100
    assert find_cuda_device("NVIDIA A30 MIG 1g.6gb", "8.0", (H100, A30_SLICE)) is A30_SLICE


def test_a_gpu_that_cuda_and_nvml_disagree_about_is_refused(node: Node) -> None:
    node.device.name = "NVIDIA A100-SXM4-80GB"
    with pytest.raises(EngineRefusedError) as refusal:
        node.load()
    assert refusal.value.reason == "DevicesDisagree"
    assert node.device.calls["release"] == 1


def test_of_two_gpus_the_one_that_cuda_uses_must_be_the_engine_s(node: Node) -> None:
    other = H100.model_copy(update={"product": "NVIDIA-A100-SXM4-80GB", "compute_capability": "8.0"})
    node.listed.append(other)
    node.device.name, node.device.compute_capability = "NVIDIA A100-SXM4-80GB", (8, 0)
    with pytest.raises(EngineRefusedError) as refusal:
        node.load()
    assert "NVIDIA-A100-SXM4-80GB" in str(refusal.value)
    assert node.device.calls["release"] == 1


def test_a_plan_that_the_library_refuses_is_told_from_one_without_room(node: Node) -> None:
    node.path.write_bytes(PLAN[:-1])
    with pytest.raises(EngineRefusedError) as refusal:
        node.load()
    assert refusal.value.reason == "EngineTruncated"
    node.path.write_bytes(PLAN)
    node.device.free = 100
    with pytest.raises(EngineRefusedError) as refusal:
        node.load()
    assert refusal.value.reason == "OutOfMemory"
    assert "workspace" not in refusal.value.remedy


def test_a_device_that_is_broken_while_a_plan_is_loaded_is_no_fault_of_the_plan(node: Node) -> None:
    node.device.sticky = CUresult.CUDA_ERROR_ECC_UNCORRECTABLE
    with pytest.raises(DeviceFailedError) as failure:
        node.load()
    assert failure.value.reason == "EccUncorrectable"


def test_missing_bindings_and_unknown_options_are_told(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError) as misspelt:
        node.load(cudagraphs="4")
    assert misspelt.value.reason == "BackendOptionInvalid"
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(EngineRefusedError) as missing:
        node.load()
    assert missing.value.reason == "ToolchainMissing"
    monkeypatch.undo()
