"""Limits, bad requests and faults of the TensorRT backends, on fakes of CUDA and of the library.

What they compute on a real GPU, and how fast, is in the records under docs/gpu.
"""

import numpy as np
import pytest
from tests.engines.fake_cuda import CUresult
from tests.engines.nvinfer_bench import F32, MakeBench, check_answer, doubling, rows_of

from enginesmith_contract.errors import DeviceFailedError, EngineRefusedError, InferenceError, SpecError
from enginesmith_runtime.engines.interface import DeviceArray
from enginesmith_runtime.engines.nvinfer.options import read_options


@pytest.mark.parametrize(
    ("x", "want"),
    [
        (rows_of(9), "ShapeRefused"),
        (rows_of(2)[:, :3], "ShapeRefused"),
        (rows_of(40), "RequestTooLarge"),
        (rows_of(2).astype(np.float64), "DTypeMismatch"),
    ],
)
def test_a_request_that_cannot_run_is_told_why_and_the_next_one_runs(
    make_bench: MakeBench, x: np.ndarray, want: str
) -> None:
    bench = make_bench(doubling())
    with bench.engine.open_instance() as instance:
        check_answer(instance, 2)
        for _ in range(2):
            with pytest.raises(InferenceError) as refusal:
                instance.infer({"x": x}, profile=0, outputs=("y",))
            assert refusal.value.reason == want
            check_answer(instance, 2)
            check_answer(instance, 3)


def test_a_limit_cuts_the_buffers_and_a_request_beyond_them_is_told_so(make_bench: MakeBench) -> None:
    bench = make_bench(doubling(), pinnedMemoryLimit="1024")
    with bench.engine.open_instance() as instance:
        assert bench.engine.device_memory.pinned <= 1024
        check_answer(instance, 16, profile=1)
        with pytest.raises(InferenceError) as refusal:
            instance.infer({"x": rows_of(32)}, profile=1, outputs=("y",))
        assert refusal.value.reason == "RequestTooLarge"
        check_answer(instance, 16, profile=1)


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
    network = doubling()
    network.profiles = ({"x": ((1, 4), (32, 4), (32, 4))},)
    bench = make_bench(network, free=free, **options)
    with pytest.raises(EngineRefusedError) as refusal:
        bench.engine.open_instance()
    assert refusal.value.reason == "OutOfMemory"
    assert not isinstance(refusal.value, DeviceFailedError)
    assert bench.device.free == free
    assert bench.device.pushed == 0


def test_a_second_instance_without_room_leaves_the_first_serving(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    bench.native.room_for_contexts = 3
    with bench.engine.open_instance() as instance:
        with pytest.raises(EngineRefusedError) as refusal:
            bench.engine.open_instance()
        assert refusal.value.reason == "OutOfMemory"
        assert "OutOfMemory" in refusal.value.why
        check_answer(instance, 3)


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
    bench = make_bench(doubling())
    one, other = bench.engine.open_instance(), bench.engine.open_instance()
    bench.device.failures[call] = [code]
    with pytest.raises(DeviceFailedError) as failure:
        check_answer(one, 2)
    assert failure.value.reason == reason
    assert str(int(code)) in failure.value.why
    asked = sum(bench.device.calls.values())
    for instance in (one, other):
        with pytest.raises(DeviceFailedError):
            check_answer(instance, 2)
    with pytest.raises(DeviceFailedError):
        bench.engine.open_instance()
    with pytest.raises(DeviceFailedError):
        bench.engine.open_shared_memory(bytes(64), 1, 0)
    one.close()
    other.close()
    bench.engine.close()
    assert sum(bench.device.calls.values()) == asked


def test_an_error_that_the_driver_repeats_is_sticky_whatever_its_number(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    instance = bench.engine.open_instance()
    bench.device.sticky = CUresult.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(DeviceFailedError):
        check_answer(instance, 2)
    assert bench.engine.fault is not None


def test_an_illegal_address_met_by_the_library_breaks_the_device(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    instance = bench.engine.open_instance()
    gone = DeviceArray(address=256, shape=(2, 4), dtype=F32, nbytes=32)
    with pytest.raises(DeviceFailedError) as failure:
        instance.infer({"x": gone}, profile=0, outputs=("y",))
    assert "700" in failure.value.why


@pytest.mark.parametrize("call", ["cuGraphLaunch", "cuMemcpyHtoDAsync"])
def test_a_request_that_finds_no_memory_fails_alone(make_bench: MakeBench, call: str) -> None:
    bench = make_bench(doubling())
    with bench.engine.open_instance() as instance:
        rows = 2 if call == "cuGraphLaunch" else 3
        bench.device.failures[call] = [CUresult.CUDA_ERROR_OUT_OF_MEMORY]
        with pytest.raises(InferenceError) as failure:
            check_answer(instance, rows)
        assert failure.value.reason == "OutOfMemory"
        for _ in range(4):
            check_answer(instance, rows)


@pytest.mark.parametrize("call", ["cuStreamBeginCapture", "cuGraphInstantiate", "cuGraphUpload", "cuStreamEndCapture"])
def test_a_recording_that_finds_no_memory_leaves_the_plain_way(make_bench: MakeBench, call: str) -> None:
    bench = make_bench(doubling())
    with bench.engine.open_instance() as instance:
        bench.device.failures[call] = [CUresult.CUDA_ERROR_OUT_OF_MEMORY]
        for turn in range(5):
            check_answer(instance, 3, turn)
            check_answer(instance, 2, turn)
        assert bench.device.streams[1000].recording is None


def test_an_error_while_an_instance_opens_is_told_from_a_broken_device(make_bench: MakeBench) -> None:
    bench = make_bench(doubling())
    bench.device.failures["cuMemcpyHtoDAsync"] = [CUresult.CUDA_ERROR_OUT_OF_MEMORY]
    with pytest.raises(EngineRefusedError) as refusal:
        bench.engine.open_instance()
    assert (refusal.value.reason, bench.engine.fault) == ("OutOfMemory", None)
    bench.device.sticky = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
    with pytest.raises(DeviceFailedError):
        bench.engine.open_instance()
    assert bench.engine.fault is not None
