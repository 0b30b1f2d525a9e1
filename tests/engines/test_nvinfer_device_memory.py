"""Inputs and outputs in device memory of the caller's own, on fakes of CUDA and of the library.

What they compute on a real GPU, and how fast, is in the records under docs/gpu.
"""

from collections.abc import Callable

import numpy as np
import pytest
from tests.engines.fake_cuda import FakeDevice
from tests.engines.fake_nvinfer import FakeNetwork
from tests.engines.nvinfer_bench import (
    F32,
    I64,
    MakeBench,
    doubling,
    nonzero,
    rows_of,
)

from enginesmith_contract.errors import InferenceError, SpecError
from enginesmith_runtime.engines.interface import DeviceArray


def _device_array(device: FakeDevice, array: np.ndarray, offset: int = 0) -> DeviceArray:
    address = device.allocate(array.nbytes + offset) + offset
    device.write(address, array.tobytes())
    return DeviceArray(address=address, shape=array.shape, dtype=array.dtype, nbytes=array.nbytes)


def _room(device: FakeDevice, size: int, offset: int = 0) -> DeviceArray:
    return DeviceArray(address=device.allocate(size + offset) + offset, shape=(), dtype=F32, nbytes=size)


@pytest.mark.parametrize("offset", [0, 4], ids=["aligned", "unaligned"])
def test_inputs_and_outputs_in_device_memory_move_no_bytes_over_the_host(make_bench: MakeBench, offset: int) -> None:
    bench = make_bench(doubling())
    device = bench.device
    with bench.engine.open_instance() as instance:
        room = _room(device, 200, offset)
        before = device.calls["cuMemcpyHtoDAsync"], device.calls["cuMemcpyDtoHAsync"]
        source = _device_array(device, rows_of(3), offset)
        for turn in range(4):
            device.write(source.address, rows_of(3, turn).tobytes())
            answer = instance.infer({"x": source}, profile=0, outputs=("y",), into={"y": room})
            written = answer["y"]
            assert isinstance(written, DeviceArray)
            assert (written.address, written.shape, written.nbytes) == (room.address, (3, 4), 48)
            got = np.frombuffer(device.read(written.address, written.nbytes), F32).reshape(3, 4)
            np.testing.assert_array_equal(got, rows_of(3, turn) * 2)
        assert (device.calls["cuMemcpyHtoDAsync"], device.calls["cuMemcpyDtoHAsync"]) == before
        # Two copies for the first run, the second, and the recording of the third; none where nothing need move.
        assert device.calls["cuMemcpyDtoDAsync"] == (6 if offset else 0)
        assert device.calls["cuGraphLaunch"] == 2


def test_some_outputs_stay_on_the_device_and_others_come_home(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    with bench.engine.open_instance() as instance:
        room = _room(bench.device, 400)
        for _ in range(3):
            answer = instance.infer({"x": rows_of(2)}, profile=0, outputs=("total", "y"), into={"y": room})
            assert isinstance(answer["y"], DeviceArray)
            np.testing.assert_array_equal(answer["total"], rows_of(2).sum(axis=1))


@pytest.mark.parametrize("network", [doubling, nonzero], ids=["known shape", "shape from data"])
def test_an_output_that_does_not_fit_its_place_is_refused(
    make_bench: MakeBench, network: Callable[[], FakeNetwork]
) -> None:
    bench = make_bench(network())
    x = rows_of(2) + 1 if "total" in network().outputs else np.ones(5, np.float32)
    name = "y" if x.ndim == 2 else "where"
    with bench.engine.open_instance() as instance:
        with pytest.raises(InferenceError) as refusal:
            instance.infer({"x": x}, profile=0, outputs=(name,), into={name: _room(bench.device, 31)})
        assert refusal.value.reason == "OutputTooLarge"
        answer = instance.infer({"x": x}, profile=0, outputs=(name,), into={name: _room(bench.device, 64)})
        assert isinstance(answer[name], DeviceArray)


def test_an_output_from_data_is_left_where_the_caller_wants_it(make_bench: MakeBench) -> None:
    bench = make_bench(nonzero())
    with bench.engine.open_instance() as instance:
        room = _room(bench.device, 128)
        x = np.array([0, 1, 0, 1, 1], np.float32)
        where = instance.infer({"x": x}, profile=0, outputs=("where",), into={"where": room})["where"]
        assert isinstance(where, DeviceArray)
        assert where.shape == (3,)
        np.testing.assert_array_equal(np.frombuffer(bench.device.read(where.address, where.nbytes), I64), [1, 3, 4])


def test_device_memory_that_does_not_hold_the_input_is_refused(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    with bench.engine.open_instance() as instance:
        good = _device_array(bench.device, rows_of(2))
        for bad in (
            DeviceArray(address=good.address, shape=(2, 4), dtype=F32, nbytes=31),
            DeviceArray(address=good.address, shape=(2, 4), dtype=I64, nbytes=64),
        ):
            with pytest.raises(InferenceError) as refusal:
                instance.infer({"x": bad}, profile=0, outputs=("y",))
            assert refusal.value.reason == "InputMismatch"


def test_a_client_s_region_is_mapped_and_what_it_says_of_itself_is_checked(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    handle = bytes(range(64))
    bench.device.regions[handle] = np.zeros(4096, np.uint8)
    region = bench.engine.open_shared_memory(handle, 4096, 0)
    assert region.address == bench.device.regions[handle].ctypes.data
    region.close()
    region.close()
    for bad in ((handle, 4097, 0), (handle, 0, 0), (handle, 10, 1), (handle[:-1], 10, 0), (bytes(64), 10, 0)):
        with pytest.raises(SpecError) as refusal:
            bench.engine.open_shared_memory(*bad)
        assert refusal.value.reason == "SharedMemoryRefused"
    assert bench.device.pushed == 0
