"""A machine that has cuda-bindings and no pycuda: what the engines' own tests do not show of it."""

import gc
import sys
from types import ModuleType

import pytest
from tests.engines.fake_cuda import CUresult, FakeDevice
from tests.engines.fake_cuda_owner import FakeOwningBindings

from enginesmith_contract.errors import EngineRefusedError
from enginesmith_runtime.engines.cuda.bindings_driver import BindingsDriver
from enginesmith_runtime.engines.cuda.device import open_device


@pytest.fixture
def bindings(monkeypatch: pytest.MonkeyPatch) -> FakeOwningBindings:
    """The fake cuda-bindings in an environment where pycuda cannot be imported."""
    double = FakeOwningBindings(FakeDevice())
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", double)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    return double


def test_the_gpu_is_opened_and_released_without_pycuda(bindings: FakeOwningBindings) -> None:
    gpu = open_device()
    assert isinstance(gpu.driver, BindingsDriver)
    assert gpu.identity == ("NVIDIA H100 80GB HBM3", "9.0")
    gpu.release()
    assert (bindings.device.calls["release"], bindings.device.pushed) == (1, 0)


def test_pinned_memory_is_freed_with_its_array_and_never_twice(bindings: FakeOwningBindings) -> None:
    array = open_device().driver.pagelocked_empty(8, "f4")
    part = array[2:4]
    array[:] = 1.5
    del array
    gc.collect()
    assert part.tolist() == [1.5, 1.5]
    assert len(bindings.pinned) == 1
    del part
    gc.collect()
    assert (bindings.pinned, bindings.device.pushed) == ({}, 0)


@pytest.mark.parametrize(
    ("call", "code", "reason", "said"),
    [
        ("cuInit", CUresult.CUDA_ERROR_NO_DEVICE, "NoDevice", "CUDA error 100"),
        ("Device", CUresult.CUDA_ERROR_OUT_OF_MEMORY, "OutOfMemory", "CUDA error 2"),
    ],
)
def test_a_gpu_that_cannot_be_opened_is_refused_with_cuda_s_number(
    bindings: FakeOwningBindings, call: str, code: CUresult, reason: str, said: str
) -> None:
    bindings.device.failures[call] = [code]
    with pytest.raises(EngineRefusedError, match=said) as refusal:
        open_device()
    assert refusal.value.reason == reason


def test_a_driver_library_that_does_not_load_is_a_refusal(
    bindings: FakeOwningBindings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_flags: int) -> None:
        raise RuntimeError("cuda is an NVIDIA driver library")  # as cuda-bindings says it

    monkeypatch.setattr(bindings, "cuInit", missing)
    with pytest.raises(EngineRefusedError, match="NVIDIA driver library"):
        open_device()
