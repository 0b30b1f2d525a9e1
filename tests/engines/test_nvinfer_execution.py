"""Pools, graphs, output allocators and faults of the TensorRT backends, on fakes of CUDA and of the library.

What they compute on a real GPU, and how fast, is in the records under docs/gpu.
"""

import threading
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from tests.engines import fake_nvinfer
from tests.engines.fake_cuda import CUresult, FakeBindings, FakeDevice, FakeDriver
from tests.engines.fake_nvinfer import FakeEngine, FakeLog, FakeNetwork

from enginesmith_contract.backends import Backend, Hardware, Toolchain
from enginesmith_contract.errors import DeviceFailedError, EngineRefusedError, InferenceError, SpecError
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_contract.manifest import Manifest, Timings
from enginesmith_contract.preparation import Batching
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_contract.verification import Verification, VerificationStatus
from enginesmith_runtime.engines.cuda_device import open_device
from enginesmith_runtime.engines.interface import DeviceArray, Instance
from enginesmith_runtime.engines.nvinfer_execution import NvInferEngine
from enginesmith_runtime.engines.nvinfer_options import read_options

F32 = np.dtype(np.float32)
I64 = np.dtype(np.int64)


def _doubling() -> FakeNetwork:
    """Twice x, and the sum of each row; batch 1 to 8 and 8 to 32."""
    return FakeNetwork(
        inputs={"x": (F32, (-1, 4))},
        outputs={"y": F32, "total": F32},
        compute=lambda values: {"y": values["x"] * 2, "total": values["x"].sum(axis=1, dtype=np.float32)},
        shapes=lambda shapes, _values: {"y": shapes["x"], "total": shapes["x"][:1]},
        profiles=({"x": ((0, 4), (2, 4), (8, 4))}, {"x": ((8, 4), (16, 4), (32, 4))}),
    )


def _nonzero() -> FakeNetwork:
    """The indices of what is not zero: how many depends on the data; and y = -x."""
    return FakeNetwork(
        inputs={"x": (F32, (-1,))},
        outputs={"where": I64, "y": F32},
        compute=lambda values: {"where": np.flatnonzero(values["x"]).astype(I64), "y": -values["x"]},
        shapes=lambda shapes, _values: {"where": (-1,), "y": shapes["x"]},
        profiles=({"x": ((1,), (4,), (16,))},),
        bounds={"where": 16 * 8},
    )


def _reshaping() -> FakeNetwork:
    """X in the shape that a shape tensor on the host says."""
    return FakeNetwork(
        inputs={"x": (F32, (-1,)), "shape": (I64, (2,))},
        outputs={"y": F32},
        compute=lambda values: {"y": values["x"].reshape(values["shape"])},
        shapes=lambda _shapes, values: {"y": tuple(int(size) for size in values["shape"])},
        profiles=({"x": ((1,), (4,), (16,))},),
        values={"shape": ([1, 1], [2, 2], [4, 4])},
    )


_DTYPES = {F32: DType.FP32, I64: DType.INT64}


def _manifest(network: FakeNetwork) -> Manifest:
    key_inputs = EngineKeyInputs(preparation_key="0" * 64, backend=Backend.TENSORRT, backend_version="10.6.0.26")
    return Manifest(
        engine_key=engine_key(key_inputs),
        key_inputs=key_inputs,
        source_digest="0" * 64,
        engine_digest="0" * 64,
        files=(),
        inputs=tuple(
            TensorSpec(name=name, dtype=_DTYPES[dtype], shape=shape) for name, (dtype, shape) in network.inputs.items()
        ),
        outputs=tuple(TensorSpec(name=name, dtype=_DTYPES[dtype], shape=()) for name, dtype in network.outputs.items()),
        profiles=(),
        batching=Batching(proved=False),
        toolchain=Toolchain(name="tensorrt", backend=Backend.TENSORRT, version="10.6.0.26"),
        hardware=Hardware(),
        timings=Timings(build_seconds=0.0),
        verification=Verification(status=VerificationStatus.NOT_RUN),
        created_at="",
    )


class Bench(SimpleNamespace):
    """An engine with its fakes: engine, native (the library's engine), device."""

    engine: NvInferEngine
    native: FakeEngine
    device: FakeDevice

    def memory_events(self) -> tuple[int, ...]:
        """How often memory was taken, by any way that there is."""
        calls = self.device.calls
        report = self.engine.device_memory
        return (calls["mem_alloc"], calls["pagelocked_empty"], calls["cuGraphInstantiate"], report.allocations)


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench() -> MakeBench:
    """Return a maker of engines: `make_bench(network, cudaGraphs="4", free=1 << 20)`."""

    def make(network: FakeNetwork, *, free: int = 1 << 30, **options: str) -> Bench:
        device = FakeDevice(free=free)
        log = FakeLog()
        native = FakeEngine(network, device, log)
        engine = NvInferEngine(
            manifest=_manifest(network),
            module=fake_nvinfer,
            runtime=None,
            engine=native,
            log=log,
            gpu=open_device(FakeDriver(device), FakeBindings(device)),
            options=read_options(options),
        )
        return Bench(engine=engine, native=native, device=device)

    return make


def _x(rows: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + rows * 4, dtype=np.float32).reshape(rows, 4)


def _check(instance: Instance, rows: int, start: int = 0, profile: int = 0) -> None:
    x = _x(rows, start)
    answer = instance.infer({"x": x}, profile=profile, outputs=("y", "total"))
    np.testing.assert_array_equal(answer["y"], x * 2)
    np.testing.assert_array_equal(answer["total"], x.sum(axis=1))


def test_every_profile_computes_what_it_should_and_the_opt_shapes_run_as_graphs_from_the_start(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(_doubling())
    with bench.engine.open_instance() as instance:
        assert len(bench.device.graphs) == 2
        for start in range(3):
            _check(instance, 2, start)
            _check(instance, 16, start, profile=1)
        assert bench.device.calls["cuGraphLaunch"] == 6
        _check(instance, 5)
        _check(instance, 2)


def test_a_form_is_recorded_when_it_comes_again_and_the_graph_gives_the_same_answers(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
    with bench.engine.open_instance() as instance:
        for turn in range(5):
            _check(instance, 3, turn)
            _check(instance, 4, 10 * turn)
        assert instance.graph_count == len(bench.device.graphs) == 4
        assert bench.device.calls["cuGraphLaunch"] == 2 * 3


def test_a_request_takes_no_memory_and_the_address_of_its_data_does_not_matter(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
    with bench.engine.open_instance() as instance:
        for rows in range(1, 9):
            for _ in range(2):
                _check(instance, rows)
        before = bench.memory_events()
        for turn in range(20):
            for rows in range(1, 9):
                _check(instance, rows, turn)
        assert bench.memory_events() == before


def test_the_graphs_of_an_instance_are_bounded_and_the_least_used_gives_way(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling(), cudaGraphs="3")
    with bench.engine.open_instance() as instance:
        for _ in range(2):
            _check(instance, 3)
        assert len(bench.device.graphs) == 3
        _check(instance, 2)
        for _ in range(2):
            _check(instance, 4)
        assert len(bench.device.graphs) == 3
        launched = bench.device.calls["cuGraphLaunch"]
        _check(instance, 2)
        _check(instance, 4)
        _check(instance, 3)
        assert bench.device.calls["cuGraphLaunch"] == launched + 3
        _check(instance, 16, profile=1)
        assert bench.device.calls["cuGraphLaunch"] == launched + 3, "the second profile's graph was the least used"


def test_more_forms_than_graphs_do_not_record_at_every_request(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling(), cudaGraphs="2")
    with bench.engine.open_instance() as instance:
        for _ in range(50):
            for rows in range(3, 9):
                _check(instance, rows)
        assert bench.device.calls["cuGraphInstantiate"] < 300 / 4


@pytest.mark.parametrize("options", [{"cudaGraphs": "0"}, {"spin": "false"}, {"cudaGraphs": "0", "spin": "false"}])
def test_without_graphs_or_without_spinning_the_answers_are_the_same(
    make_bench: MakeBench, options: dict[str, str]
) -> None:
    bench = make_bench(_doubling(), **options)
    with bench.engine.open_instance() as instance:
        for turn in range(4):
            _check(instance, 2, turn)
            _check(instance, 3, turn)
        assert bool(bench.device.graphs) == ("cudaGraphs" not in options)


def test_a_form_that_cannot_be_recorded_is_run_plainly_and_not_tried_again(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
    bench.native.refuses_capture = True
    with bench.engine.open_instance() as instance:
        for turn in range(4):
            _check(instance, 2, turn)
            _check(instance, 3, turn)
        assert bench.device.calls["cuStreamBeginCapture"] == 2, "once a profile, at its opt"
        assert not bench.device.graphs


def test_a_bound_context_is_not_told_its_shapes_again(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling(), cudaGraphs="0")
    with bench.engine.open_instance() as instance:
        told = bench.native.calls["set_input_shape"]
        for turn in range(3):
            _check(instance, 3, turn)
        assert bench.native.calls["set_input_shape"] == told + 1


def test_forms_that_take_turns_in_one_context_do_not_get_each_other_s_shapes(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling(), cudaGraphs="0")
    with bench.engine.open_instance() as instance:
        for turn in range(3):
            _check(instance, 8, 100 * turn)
            _check(instance, 3, 100 * turn)


def test_outputs_come_in_the_order_asked_and_hold_until_the_next_inference(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
    with bench.engine.open_instance() as instance:
        for _ in range(3):
            first = instance.infer({"x": _x(2)}, profile=0, outputs=("total", "y"))
        assert list(first) == ["total", "y"]
        np.testing.assert_array_equal(first["y"], 2 * _x(2))
        second = instance.infer({"x": _x(2, 50)}, profile=0, outputs=("total", "y"))
        np.testing.assert_array_equal(second["y"], 2 * _x(2, 50))
        assert np.shares_memory(first["y"], second["y"]), "an answer was copied"
        assert list(instance.infer({"x": _x(2)}, profile=0, outputs=["y"])) == ["y"]


def test_what_was_staged_is_read_in_place(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
    with bench.engine.open_instance() as instance:
        for turn in range(4):
            staged = instance.staging("x", (3, 4))
            assert staged is instance.staging("x", (3, 4))
            staged[...] = _x(3, turn)
            answer = instance.infer({"x": staged}, profile=0, outputs=("y",))
            np.testing.assert_array_equal(answer["y"], _x(3, turn) * 2)
        with pytest.raises(InferenceError) as refusal:
            instance.staging("x", (33, 4))
        assert refusal.value.reason == "RequestTooLarge"


def test_a_batch_of_none_is_answered(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
    with bench.engine.open_instance() as instance:
        for _ in range(3):
            answer = instance.infer({"x": _x(0)}, profile=0, outputs=("y", "total"))
            assert (answer["y"].shape, answer["total"].shape) == ((0, 4), (0,))


def test_an_output_whose_shape_depends_on_the_data_has_its_true_shape(make_bench: MakeBench) -> None:
    bench = make_bench(_nonzero())
    with bench.engine.open_instance() as instance:
        before = bench.memory_events()
        for values in ([0, 1, 2, 0], [0, 0, 0, 0], [5, 5, 5, 5], [1], [0, 3] * 8):
            x = np.array(values, np.float32)
            answer = instance.infer({"x": x}, profile=0, outputs=("y", "where"))
            assert list(answer) == ["y", "where"]
            np.testing.assert_array_equal(answer["where"], np.flatnonzero(x))
            np.testing.assert_array_equal(answer["y"], -x)
        assert bench.memory_events() == before
        assert not bench.device.graphs


def test_an_output_larger_than_the_library_s_bound_is_refused_and_the_next_request_is_served(
    make_bench: MakeBench,
) -> None:
    network = _nonzero()
    network.bounds = {"where": 256}
    network.profiles = ({"x": ((1,), (4,), (64,))},)
    bench = make_bench(network)
    with bench.engine.open_instance() as instance:
        with pytest.raises(InferenceError) as refusal:
            instance.infer({"x": np.ones(64, np.float32)}, profile=0, outputs=("where",))
        assert refusal.value.reason == "OutputTooLarge"
        answer = instance.infer({"x": np.ones(3, np.float32)}, profile=0, outputs=("where",))
        np.testing.assert_array_equal(answer["where"], [0, 1, 2])


def test_the_values_of_a_shape_tensor_are_read_at_every_request(make_bench: MakeBench) -> None:
    bench = make_bench(_reshaping())
    x = np.arange(12, dtype=np.float32)
    with bench.engine.open_instance() as instance:
        for shape in ((3, 4), (2, 6), (3, 4), (4, 3)):
            answer = instance.infer({"x": x, "shape": np.array(shape, I64)}, profile=0, outputs=("y",))
            np.testing.assert_array_equal(answer["y"], x.reshape(shape))
        assert not bench.device.graphs


def test_instances_keep_out_of_each_other_s_way(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
    with bench.engine.open_instance() as one, bench.engine.open_instance() as other:
        for turn in range(3):
            _check(one, 3, turn)
            _check(other, 3, 100 + turn)
        assert len(bench.device.streams) == 2
        # A device-wide wait would hold one instance up for the other.
        assert bench.device.calls["cuCtxSynchronize"] == 0
        assert bench.device.calls["mem_alloc"] == 4


def test_a_call_from_another_thread_enters_the_context_once(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
    with bench.engine.open_instance() as instance:
        _check(instance, 2)
        entered = bench.device.calls["cuCtxSetCurrent"]
        threads = [threading.Thread(target=lambda: [_check(instance, 2) for _ in range(5)]) for _ in range(2)]
        for thread in threads:
            thread.start()
            thread.join()
        assert bench.device.calls["cuCtxSetCurrent"] == entered + 2
    assert bench.device.pushed == 0


def test_closing_gives_everything_back(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
    instance = bench.engine.open_instance()
    _check(instance, 3)
    held = bench.engine.device_memory
    assert held.contexts > 0
    assert held.buffers == held.pinned > 0
    instance.close()
    instance.close()
    assert not bench.device.memory
    assert not bench.device.graphs
    left = bench.engine.device_memory
    assert (left.contexts, left.buffers, left.pinned) == (0, 0, 0)
    bench.engine.close()
    bench.engine.close()
    assert bench.device.calls["release"] == 1
    with pytest.raises(RuntimeError):
        _check(instance, 3)


# Device memory of the caller's own.


def _device_array(device: FakeDevice, array: np.ndarray, offset: int = 0) -> DeviceArray:
    address = device.allocate(array.nbytes + offset) + offset
    device.write(address, array.tobytes())
    return DeviceArray(address=address, shape=array.shape, dtype=array.dtype, nbytes=array.nbytes)


def _room(device: FakeDevice, size: int, offset: int = 0) -> DeviceArray:
    return DeviceArray(address=device.allocate(size + offset) + offset, shape=(), dtype=F32, nbytes=size)


@pytest.mark.parametrize("offset", [0, 4], ids=["aligned", "unaligned"])
def test_inputs_and_outputs_in_device_memory_move_no_bytes_over_the_host(make_bench: MakeBench, offset: int) -> None:
    bench = make_bench(_doubling())
    device = bench.device
    with bench.engine.open_instance() as instance:
        room = _room(device, 200, offset)
        before = device.calls["cuMemcpyHtoDAsync"], device.calls["cuMemcpyDtoHAsync"]
        source = _device_array(device, _x(3), offset)
        for turn in range(4):
            device.write(source.address, _x(3, turn).tobytes())
            answer = instance.infer({"x": source}, profile=0, outputs=("y",), into={"y": room})
            written = answer["y"]
            assert isinstance(written, DeviceArray)
            assert (written.address, written.shape, written.nbytes) == (room.address, (3, 4), 48)
            got = np.frombuffer(device.read(written.address, written.nbytes), F32).reshape(3, 4)
            np.testing.assert_array_equal(got, _x(3, turn) * 2)
        assert (device.calls["cuMemcpyHtoDAsync"], device.calls["cuMemcpyDtoHAsync"]) == before
        # Two copies for the first run, the second, and the recording of the third; none where nothing need move.
        assert device.calls["cuMemcpyDtoDAsync"] == (6 if offset else 0)
        assert device.calls["cuGraphLaunch"] == 2


def test_some_outputs_stay_on_the_device_and_others_come_home(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
    with bench.engine.open_instance() as instance:
        room = _room(bench.device, 400)
        for _ in range(3):
            answer = instance.infer({"x": _x(2)}, profile=0, outputs=("total", "y"), into={"y": room})
            assert isinstance(answer["y"], DeviceArray)
            np.testing.assert_array_equal(answer["total"], _x(2).sum(axis=1))


@pytest.mark.parametrize("network", [_doubling, _nonzero], ids=["known shape", "shape from data"])
def test_an_output_that_does_not_fit_its_place_is_refused(
    make_bench: MakeBench, network: Callable[[], FakeNetwork]
) -> None:
    bench = make_bench(network())
    x = _x(2) + 1 if "total" in network().outputs else np.ones(5, np.float32)
    name = "y" if x.ndim == 2 else "where"
    with bench.engine.open_instance() as instance:
        with pytest.raises(InferenceError) as refusal:
            instance.infer({"x": x}, profile=0, outputs=(name,), into={name: _room(bench.device, 31)})
        assert refusal.value.reason == "OutputTooLarge"
        answer = instance.infer({"x": x}, profile=0, outputs=(name,), into={name: _room(bench.device, 64)})
        assert isinstance(answer[name], DeviceArray)


def test_an_output_from_data_is_left_where_the_caller_wants_it(make_bench: MakeBench) -> None:
    bench = make_bench(_nonzero())
    with bench.engine.open_instance() as instance:
        room = _room(bench.device, 128)
        x = np.array([0, 1, 0, 1, 1], np.float32)
        where = instance.infer({"x": x}, profile=0, outputs=("where",), into={"where": room})["where"]
        assert isinstance(where, DeviceArray)
        assert where.shape == (3,)
        np.testing.assert_array_equal(np.frombuffer(bench.device.read(where.address, where.nbytes), I64), [1, 3, 4])


def test_device_memory_that_does_not_hold_the_input_is_refused(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
    with bench.engine.open_instance() as instance:
        good = _device_array(bench.device, _x(2))
        for bad in (
            DeviceArray(address=good.address, shape=(2, 4), dtype=F32, nbytes=31),
            DeviceArray(address=good.address, shape=(2, 4), dtype=I64, nbytes=64),
        ):
            with pytest.raises(InferenceError) as refusal:
                instance.infer({"x": bad}, profile=0, outputs=("y",))
            assert refusal.value.reason == "InputMismatch"


def test_a_client_s_region_is_mapped_and_what_it_says_of_itself_is_checked(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
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


# Limits and bad requests.


@pytest.mark.parametrize(
    ("x", "want"),
    [
        (_x(9), "ShapeRefused"),
        (_x(2)[:, :3], "ShapeRefused"),
        (_x(40), "RequestTooLarge"),
        (_x(2).astype(np.float64), "DTypeMismatch"),
    ],
)
def test_a_request_that_cannot_run_is_told_why_and_the_next_one_runs(
    make_bench: MakeBench, x: np.ndarray, want: str
) -> None:
    bench = make_bench(_doubling())
    with bench.engine.open_instance() as instance:
        _check(instance, 2)
        for _ in range(2):
            with pytest.raises(InferenceError) as refusal:
                instance.infer({"x": x}, profile=0, outputs=("y",))
            assert refusal.value.reason == want
            _check(instance, 2)
            _check(instance, 3)


def test_a_limit_cuts_the_buffers_and_a_request_beyond_them_is_told_so(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling(), pinnedMemoryLimit="1024")
    with bench.engine.open_instance() as instance:
        assert bench.engine.device_memory.pinned <= 1024
        _check(instance, 16, profile=1)
        with pytest.raises(InferenceError) as refusal:
            instance.infer({"x": _x(32)}, profile=1, outputs=("y",))
        assert refusal.value.reason == "RequestTooLarge"
        _check(instance, 16, profile=1)


@pytest.mark.parametrize(
    ("free", "options"),
    [
        (2000, {}),
        (4096 + 1000, {}),
        (1 << 30, {"deviceMemoryLimit": "4Ki"}),
        (1 << 30, {"pinnedMemoryLimit": "512"}),
    ],
    ids=["no room for activations", "no room for buffers", "a limit", "buffers too small for opt"],
)
def test_an_instance_without_room_is_refused_and_leaves_nothing_behind(
    make_bench: MakeBench, free: int, options: dict[str, str]
) -> None:
    network = _doubling()
    network.profiles = ({"x": ((1, 4), (32, 4), (32, 4))},)
    bench = make_bench(network, free=free, **options)
    with pytest.raises(EngineRefusedError) as refusal:
        bench.engine.open_instance()
    assert refusal.value.reason == "OutOfMemory"
    assert not isinstance(refusal.value, DeviceFailedError)
    assert bench.device.free == free
    assert bench.device.pushed == 0


def test_a_second_instance_without_room_leaves_the_first_serving(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
    bench.native.room_for_contexts = 3
    with bench.engine.open_instance() as instance:
        with pytest.raises(EngineRefusedError) as refusal:
            bench.engine.open_instance()
        assert refusal.value.reason == "OutOfMemory"
        assert "OutOfMemory" in refusal.value.why
        _check(instance, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cudaGraphs", "-1"),
        ("cudaGraphs", "many"),
        ("spin", "yes"),
        ("pinnedMemoryLimit", "0"),
        ("deviceMemoryLimit", "2 Gi"),
        ("weightStreamingBudget", "-5"),
        ("cudaGraph", "4"),
    ],
)
def test_an_option_that_is_unknown_or_has_no_such_value_is_refused(name: str, value: str) -> None:
    with pytest.raises(SpecError) as refusal:
        read_options({name: value})
    assert refusal.value.reason == "BackendOptionInvalid"
    assert name in refusal.value.where


def test_options_are_read() -> None:
    read = read_options(
        {
            "cudaGraphs": "0",
            "spin": "false",
            "pinnedMemoryLimit": "64Mi",
            "deviceMemoryLimit": "2G",
            "weightStreamingBudget": "auto",
        }
    )
    assert (read.cuda_graphs, read.spin, read.pinned_memory_limit) == (0, False, 64 << 20)
    assert (read.device_memory_limit, read.weight_streaming_budget) == (2_000_000_000, None)
    assert read_options({"weightStreamingBudget": "0"}).weight_streaming_budget == 0


# Faults.


@pytest.mark.parametrize(
    ("call", "code", "reason"),
    [
        ("cuStreamSynchronize", CUresult.CUDA_ERROR_ILLEGAL_ADDRESS, "DeviceFailed"),
        ("cuGraphLaunch", CUresult.CUDA_ERROR_LAUNCH_FAILED, "DeviceFailed"),
        ("cuGraphLaunch", CUresult.CUDA_ERROR_ECC_UNCORRECTABLE, "EccUncorrectable"),
        ("cuStreamSynchronize", CUresult.CUDA_ERROR_NO_DEVICE, "DeviceLost"),
        ("cuStreamSynchronize", CUresult.CUDA_ERROR_UNKNOWN, "DeviceLost"),
    ],
)
def test_a_sticky_error_breaks_every_instance_and_the_device_is_not_asked_again(
    make_bench: MakeBench, call: str, code: CUresult, reason: str
) -> None:
    bench = make_bench(_doubling())
    one, other = bench.engine.open_instance(), bench.engine.open_instance()
    bench.device.failures[call] = [code]
    with pytest.raises(DeviceFailedError) as failure:
        _check(one, 2)
    assert failure.value.reason == reason
    assert str(int(code)) in failure.value.why
    asked = sum(bench.device.calls.values())
    for instance in (one, other):
        with pytest.raises(DeviceFailedError):
            _check(instance, 2)
    with pytest.raises(DeviceFailedError):
        bench.engine.open_instance()
    with pytest.raises(DeviceFailedError):
        bench.engine.open_shared_memory(bytes(64), 1, 0)
    one.close()
    other.close()
    bench.engine.close()
    assert sum(bench.device.calls.values()) == asked


def test_an_error_that_the_driver_repeats_is_sticky_whatever_its_number(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
    instance = bench.engine.open_instance()
    bench.device.sticky = CUresult.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(DeviceFailedError):
        _check(instance, 2)
    assert bench.engine.fault is not None


def test_an_illegal_address_met_by_the_library_breaks_the_device(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
    instance = bench.engine.open_instance()
    gone = DeviceArray(address=256, shape=(2, 4), dtype=F32, nbytes=32)
    with pytest.raises(DeviceFailedError) as failure:
        instance.infer({"x": gone}, profile=0, outputs=("y",))
    assert "700" in failure.value.why


@pytest.mark.parametrize("call", ["cuGraphLaunch", "cuMemcpyHtoDAsync"])
def test_a_request_that_finds_no_memory_fails_alone(make_bench: MakeBench, call: str) -> None:
    bench = make_bench(_doubling())
    with bench.engine.open_instance() as instance:
        rows = 2 if call == "cuGraphLaunch" else 3
        bench.device.failures[call] = [CUresult.CUDA_ERROR_OUT_OF_MEMORY]
        with pytest.raises(InferenceError) as failure:
            _check(instance, rows)
        assert failure.value.reason == "OutOfMemory"
        for _ in range(4):
            _check(instance, rows)


@pytest.mark.parametrize("call", ["cuStreamBeginCapture", "cuGraphInstantiate", "cuGraphUpload", "cuStreamEndCapture"])
def test_a_recording_that_finds_no_memory_leaves_the_plain_way(make_bench: MakeBench, call: str) -> None:
    bench = make_bench(_doubling())
    with bench.engine.open_instance() as instance:
        bench.device.failures[call] = [CUresult.CUDA_ERROR_OUT_OF_MEMORY]
        for turn in range(5):
            _check(instance, 3, turn)
            _check(instance, 2, turn)
        assert bench.device.streams[1000].recording is None


def test_an_error_while_an_instance_opens_is_told_from_a_broken_device(make_bench: MakeBench) -> None:
    bench = make_bench(_doubling())
    bench.device.failures["cuMemcpyHtoDAsync"] = [CUresult.CUDA_ERROR_OUT_OF_MEMORY]
    with pytest.raises(EngineRefusedError) as refusal:
        bench.engine.open_instance()
    assert (refusal.value.reason, bench.engine.fault) == ("OutOfMemory", None)
    bench.device.sticky = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
    with pytest.raises(DeviceFailedError):
        bench.engine.open_instance()
    assert bench.engine.fault is not None
