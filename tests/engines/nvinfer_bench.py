"""Engines on fakes of CUDA and of the library, for the tests of what the TensorRT backends do with them."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
from tests.engines import fake_nvinfer
from tests.engines.fake_cuda import FakeBindings, FakeDevice, FakeDriver
from tests.engines.fake_cuda_owner import FakeOwningBindings
from tests.engines.fake_nvinfer import FakeEngine, FakeLog, FakeNetwork

from enginesmith_contract.backends import Backend, Hardware, Toolchain
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_contract.manifest import Manifest, Timings
from enginesmith_contract.preparation import Batching
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_contract.verification import Verification, VerificationStatus
from enginesmith_runtime.engines.cuda.bindings_driver import BindingsDriver
from enginesmith_runtime.engines.cuda.device import Gpu, open_device
from enginesmith_runtime.engines.interface import Instance
from enginesmith_runtime.engines.nvinfer.execution import NvInferEngine
from enginesmith_runtime.engines.nvinfer.options import read_options

F32 = np.dtype(np.float32)
I64 = np.dtype(np.int64)


def doubling() -> FakeNetwork:
    """Twice x, and the sum of each row; batch 1 to 8 and 8 to 32."""
    return FakeNetwork(
        inputs={"x": (F32, (-1, 4))},
        outputs={"y": F32, "total": F32},
        compute=lambda values: {"y": values["x"] * 2, "total": values["x"].sum(axis=1, dtype=np.float32)},
        shapes=lambda shapes, _values: {"y": shapes["x"], "total": shapes["x"][:1]},
        profiles=({"x": ((0, 4), (2, 4), (8, 4))}, {"x": ((8, 4), (16, 4), (32, 4))}),
    )


def nonzero() -> FakeNetwork:
    """The indices of what is not zero: how many depends on the data; and y = -x."""
    return FakeNetwork(
        inputs={"x": (F32, (-1,))},
        outputs={"where": I64, "y": F32},
        compute=lambda values: {"where": np.flatnonzero(values["x"]).astype(I64), "y": -values["x"]},
        shapes=lambda shapes, _values: {"where": (-1,), "y": shapes["x"]},
        profiles=({"x": ((1,), (4,), (16,))},),
        bounds={"where": 16 * 8},
    )


def reshaping() -> FakeNetwork:
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


def open_fake_gpu(device: FakeDevice, *, pycuda: bool) -> Gpu:
    """Return the device as `open_device` opens it with pycuda, or where pycuda is not installed."""
    if pycuda:
        return open_device(FakeDriver(device), FakeBindings(device))
    bindings = FakeOwningBindings(device)
    return open_device(BindingsDriver(bindings), bindings)


def bench_maker(*, pycuda: bool = True) -> MakeBench:
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
            gpu=open_fake_gpu(device, pycuda=pycuda),
            options=read_options(options),
        )
        return Bench(engine=engine, native=native, device=device)

    return make


def rows_of(rows: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + rows * 4, dtype=np.float32).reshape(rows, 4)


def check_answer(instance: Instance, rows: int, start: int = 0, profile: int = 0) -> None:
    x = rows_of(rows, start)
    answer = instance.infer({"x": x}, profile=profile, outputs=("y", "total"))
    np.testing.assert_array_equal(answer["y"], x * 2)
    np.testing.assert_array_equal(answer["total"], x.sum(axis=1))
