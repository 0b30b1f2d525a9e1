"""What is said where the driver does not start, another process has the GPU, or its memory is full."""

import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
from tests.engines.fake_cuda import FakeBindings, FakeDevice, FakeDriver
from tests.engines.fake_nvml import crowded_nvml, fake_nvml

from enginesmith_contract.errors import BuildError, EngineRefusedError
from enginesmith_runtime.engines.cuda.device import open_device
from enginesmith_runtime.engines.cuda.driver import require_driver
from enginesmith_runtime.engines.nvinfer.messages import Translation, translate
from enginesmith_runtime.engines.occupancy import describe_occupancy


@pytest.mark.parametrize(
    ("code", "want_reason", "want_fragments"),
    [
        (100, "NoDevice", ("finds no GPU", "CUDA_VISIBLE_DEVICES is ''", "nvidia.com/gpu")),
        (803, "NoDriver", ("different versions", "restart the node")),
        (804, "NoDriver", ("forward compatibility", "cuda-compat")),
        (34, "NoDriver", ("stub", "LD_LIBRARY_PATH")),
        (3, "NoDriver", ("CUDA error 3", "nvidia-smi")),
    ],
)
def test_a_driver_that_does_not_start_says_why_and_what_helps(
    code: int, want_reason: str, want_fragments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    library = tmp_path / "libcuda.so.1"
    program = f"int cuInit(unsigned flags) {{ return {code}; }}".encode()
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=program, check=True, timeout=60)
    with pytest.raises(BuildError) as refusal:
        require_driver(BuildError, str(library))
    assert refusal.value.reason == want_reason
    for fragment in want_fragments:
        assert fragment in f"{refusal.value} {refusal.value.remedy}"


@pytest.mark.parametrize(
    "words",
    [
        "cuDevicePrimaryCtxRetain failed: CUDA-capable device(s) is/are busy or unavailable",
        "cuDevicePrimaryCtxRetain: CUDA error 46 (CUDA_ERROR_DEVICE_UNAVAILABLE)",
    ],
)
def test_a_gpu_that_another_process_has_for_itself_is_busy(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", crowded_nvml())
    device = FakeDevice(refusal=words)
    with pytest.raises(EngineRefusedError) as refusal:
        open_device(FakeDriver(device), FakeBindings(device))
    assert refusal.value.reason == "DeviceBusy"
    assert "process 4711 holds 130.0 GiB" in refusal.value.why
    assert "nvidia-smi -c 0" in refusal.value.remedy


def test_a_full_gpu_is_said_with_its_sizes_and_with_who_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", crowded_nvml())
    device = FakeDevice(free=0)
    with pytest.raises(EngineRefusedError) as refusal:
        open_device(FakeDriver(device), FakeBindings(device))
    assert refusal.value.reason == "OutOfMemory"
    assert "2.0 of 140.0 GiB of the GPU are free; process 4711 holds 130.0 GiB" in refusal.value.why


def test_where_nvml_does_not_tell_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe_occupancy() == "" or Path("/dev/nvidiactl").exists()
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml("NVIDIA GB10"))
    assert describe_occupancy() == ""


@pytest.mark.parametrize(
    ("message", "want_reason", "want_remedy"),
    [
        ("CUDA initialization failure with error: 35", "DriverFloor", "update"),
        ("CUDA initialization failure with error: 46", "DeviceBusy", "end the process"),
        ("CUDA initialization failure with error: 100. Please check your CUDA installation", "NoDevice", "resource"),
    ],
)
def test_what_the_library_says_of_a_driver_becomes_a_reason(message: str, want_reason: str, want_remedy: str) -> None:
    known = translate(deque([message]), Translation("Other", ""))
    assert known.reason == want_reason
    assert want_remedy in known.remedy
