"""What is installed and what this machine is, found without importing an inference library."""

import json
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
from tests.engines.fake_nvml import fake_nvml

from enginesmith_contract.backends import Backend
from enginesmith_contract.errors import BuildError, EngineRefusedError, SpecError
from enginesmith_contract.providers import find_provider, list_providers
from enginesmith_runtime.engines.cuda.driver import require_driver
from enginesmith_runtime.engines.device import (
    detect_devices,
    driver_problem,
    find_driver,
    host_hardware,
    host_memory_mib,
)
from enginesmith_runtime.engines.nvinfer.config import default_workspace_bytes
from enginesmith_runtime.engines.nvinfer.inspect import summarise_layers
from enginesmith_runtime.engines.nvinfer.messages import Translation, translate
from enginesmith_runtime.engines.refusal import refuse_mislabelled
from enginesmith_runtime.engines.registry import installed_toolchains, installed_version
from enginesmith_runtime.local_files.cpus import count_usable_cpus


def test_the_installed_toolchains_are_found_by_metadata_alone() -> None:
    program = (
        "import sys; from enginesmith_runtime.engines.registry import installed_toolchains;"
        "print(len(installed_toolchains()));"
        "print([name for name in ('onnxruntime', 'tensorrt_rtx', 'tensorrt') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert run.stdout.splitlines() == [str(len(installed_toolchains())), "[]"]


def test_a_toolchain_has_its_full_version_its_cuda_and_its_provider() -> None:
    found = {one.backend: one for one in installed_toolchains()}
    rtx, cpu = found[Backend.TENSORRT_RTX], found[Backend.ONNXRUNTIME]
    assert (rtx.cuda, rtx.provider) == ("13", None)
    assert rtx.version == installed_version("tensorrt-rtx-cu13-bindings")
    assert len(rtx.version.split(".")) == 4
    assert (cpu.name, cpu.cuda, cpu.provider) == ("onnxruntime", None, "cpu")


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert installed_version("enginesmith-does-not-exist") is None


def test_every_provider_names_its_package_and_the_default_one_needs_no_device() -> None:
    providers = list_providers()
    assert find_provider(None) == providers[0]
    assert (providers[0].name, providers[0].resource) == ("cpu", None)
    assert find_provider("openvino").wheel == "onnxruntime-openvino"
    with pytest.raises(SpecError) as refusal:
        find_provider("abacus")
    assert refusal.value.reason == "UnknownProvider"
    assert "cpu, openvino" in str(refusal.value)


def test_a_machine_without_the_driver_s_device_files_has_no_devices() -> None:
    assert bool(detect_devices()) is Path("/dev/nvidiactl").exists()


def test_the_host_is_spelled_as_kubernetes_spells_it() -> None:
    host = host_hardware()
    assert host.arch in {"amd64", "arm64"}
    assert (host.os, host.product) == (sys.platform, None)


@pytest.mark.parametrize(("library", "want"), [("libnowhere.so.1", "NoDriver"), ("libc.so.6", "NoDriver")])
def test_a_driver_that_is_missing_or_no_driver_is_refused(library: str, want: str) -> None:
    for failure in (BuildError, EngineRefusedError):
        with pytest.raises(failure) as refusal:
            require_driver(failure, library)
        assert refusal.value.reason == want


@pytest.mark.parametrize(
    ("text", "want"),
    [("max 100000", None), ("50000 100000", 1), ("100000 100000", 1), ("10 100000", 1), ("garbage", None), ("", None)],
)
def test_a_cgroup_s_quota_limits_the_threads(text: str, want: int | None, tmp_path: Path) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(text)
    everything = count_usable_cpus(tmp_path / "missing")
    assert count_usable_cpus(path) == (everything if want is None else want)


@pytest.mark.parametrize(("size", "want"), [(0, 1 << 30), ((1 << 30) - 1, 1 << 30), (1 << 30, 2 << 30)])
def test_the_default_workspace_follows_the_model_s_size(size: int, want: int) -> None:
    assert default_workspace_bytes(size) == want


@pytest.mark.parametrize(
    ("message", "want"),
    [
        ("engine generated on an incompatible device, expecting compute 8.9 got compute 9.0", "WrongDevice"),
        ("Version tag does not match. Note: Current Version: 240, Serialized Engine Version: 239", "WrongVersion"),
        ("header.magicTag == kEXPECTED_MAGIC_TAG failed: MagicTag", "NotAnEngine"),
        ("plan->header.size == blobSize failed", "EngineTruncated"),
        ("current device only supports 14 multiprocessors but the engine file requires 98", "TooFewMultiprocessors"),
        ("IShuffleLayer p2o.Reshape.79: reshape changes volume", "ProfileRefused"),
        ("Error Code 2: OutOfMemory", "OutOfMemory"),
        ("Requested amount of GPU memory (9000000000 bytes) could not be allocated.", "OutOfMemory"),
        ("Out of memory error while finding fastest tactic for node", "OutOfMemory"),
        ("CUDA initialization failure with error: 2", "OutOfMemory"),
        ("something that nobody has seen", "Other"),
    ],
)
def test_a_known_message_of_the_library_becomes_a_reason(message: str, want: str) -> None:
    assert translate(deque([message]), Translation("Other", "")).reason == want


@pytest.mark.parametrize(
    ("described", "want"),
    [
        ({"Format/Datatype": "Row major linear FP16 format (kLINEAR)"}, "FP16"),
        ({"Format/Datatype": "Row major linear FP32"}, "FP32"),
        ({"Format/Datatype": "Channel major BFloat16 format where channel % 8 == 0"}, "BF16"),
        ({"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}, "INT8"),
        ({"Format/Datatype": "Half"}, "FP16"),
        ({"Format/Datatype": "Row major linear UInt8 format"}, "UINT8"),
        ({"Format": "Linear", "Datatype": "FP8"}, "FP8"),
        ({"Format/Datatype": "Unknown format"}, "unknown"),
    ],
)
def test_a_layer_s_precision_is_read_from_every_spelling_of_tensorrt_10_and_11(
    described: dict[str, str], want: str
) -> None:
    text = json.dumps({"Layers": [{"LayerType": "gemm", "Outputs": [{"Name": "y", **described}]}]})
    assert summarise_layers(text) == {"layers": 1, "layerTypes": {"gemm": 1}, "layerPrecisions": {want: 1}}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Layers": []}', '{"Layers": ["only a name"]}'])
def test_a_report_without_details_is_no_failure(text: str) -> None:
    assert summarise_layers(text).get("layerTypes", {}) == {}


@pytest.mark.parametrize(
    ("suffix", "want"), [("", ""), ("+me", ".me"), ("-me", "-me"), ("+me.all", ".me.all"), ("+gfx", ".gfx")]
)
def test_a_slice_is_spelled_as_labels_and_keys_spell_it(
    monkeypatch: pytest.MonkeyPatch, suffix: str, want: str
) -> None:
    name = "NVIDIA RTX PRO 6000 Blackwell Server Edition"
    library = fake_nvml(name, slice_name=f"{name} MIG 1g.24gb{suffix}", memory_bytes=96 << 30)
    monkeypatch.setitem(sys.modules, "pynvml", library)

    (device,) = detect_devices()

    assert (device.product, device.mig_profile) == (name.replace(" ", "-"), f"1g.24gb{want}")
    refuse_mislabelled(f"{name.replace(' ', '-')}-MIG-1g.24gb{want}", device)


def test_a_gpu_without_memory_of_its_own_has_none_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml("NVIDIA GB10"))

    (device,) = detect_devices()

    assert (device.product, device.memory_mib) == ("NVIDIA-GB10", None)
    assert host_memory_mib() > 0


def test_without_a_driver_its_missing_library_is_named() -> None:
    assert driver_problem() == "libcuda.so.1 of the NVIDIA driver is missing here"


def test_a_gpu_that_fell_off_the_bus_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml("NVIDIA H200", lost=True, cuda=13020))
    assert detect_devices() == ()
    assert find_driver() == ("580.95.05", "13.2", "")
