"""A client's mapped memory: taken away under an inference, it costs that request and nothing else."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.server.engine_store import EngineStore

from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.engines.interface import Array, Instance
from enginesmith_runtime.engines.onnxruntime.engine import OnnxRuntimeLoader
from enginesmith_runtime.engines.onnxruntime.in_place import has_sorting_nodes
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.protocol.shared_tensors import SharedTensors
from enginesmith_runtime.server.protocol.tensor_headers import InputHeader
from enginesmith_runtime.server.protocol.tensor_place import TensorPlace
from enginesmith_runtime.server.shared_memory.region_table import RegionTable
from enginesmith_runtime.server.shared_memory.system_region import SystemRegion

SIZE = 8 << 20
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the system has its objects
OpenInstance = Callable[..., Instance]


@pytest.fixture
def block() -> Iterator[SharedMemory]:
    memory = SharedMemory(create=True, size=SIZE)
    yield memory
    memory.close()
    memory.unlink()


@pytest.fixture
def region(block: SharedMemory) -> Iterator[SystemRegion]:
    opened = SystemRegion("r", block.name, 0, SIZE)
    yield opened
    opened.close()


def _truncate(block: SharedMemory, size: int) -> None:
    os.truncate(SHARED_MEMORY / block.name, size)


def test_what_is_touched_after_its_end_is_lost_and_the_process_lives(block: SharedMemory, region: SystemRegion) -> None:
    view = region.view(0, SIZE)
    view[:] = 7
    _truncate(block, SIZE // 2)
    assert view[: SIZE // 2].min() == 7  # as long as nothing beyond the end is touched
    with pytest.raises(ProtocolError, match="has become smaller") as caught:
        region.check()
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert view.max() == 7
    view[:] = 9
    assert (view[0], view[-1]) == (9, 9)
    _truncate(block, SIZE)
    with pytest.raises(ProtocolError, match="register it again") as caught:
        region.check()
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    # What was not lost is still the client's, and the rest is the server's own.
    assert block.buf is not None
    assert (block.buf[0], block.buf[SIZE - 1]) == (9, 0)


def test_a_view_outlives_its_region_without_the_client_s_memory(block: SharedMemory) -> None:
    region = SystemRegion("r", block.name, 4096 + 8, 64)
    assert block.buf is not None
    block.buf[4096 + 8 : 4096 + 16] = b"content!"
    view = region.view(0, 8)
    assert view.tobytes() == b"content!"
    maps = Path("/proc/self/maps")
    before = maps.read_text().count(block.name)
    region.close()
    assert view.tobytes() == bytes(8)
    assert maps.read_text().count(block.name) == before - 1


_OTHER_BUS_ERROR = """
import mmap, os, sys
from enginesmith_runtime.server.shared_memory.system_region import SystemRegion
SystemRegion("r", sys.argv[1], 0, 4096)
with open(sys.argv[2], "w+b") as file:
    file.truncate(8192)
    memory = mmap.mmap(file.fileno(), 8192)
    file.truncate(0)
    memory[5000]
print("not reached")
"""


@pytest.mark.slow
def test_a_bus_error_elsewhere_still_ends_the_process(block: SharedMemory, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _OTHER_BUS_ERROR, block.name, tmp_path / "file"], capture_output=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (-7, b"")


@pytest.mark.slow
def test_a_full_file_system_is_no_bus_error_for_the_process(tmp_path: Path) -> None:
    script = (
        "import os; from enginesmith_runtime.server.shared_memory.system_region import SystemRegion\n"
        "os.truncate(os.open('/dev/shm/o', os.O_RDWR | os.O_CREAT), 1 << 22)\n"
        "region = SystemRegion('r', 'o', 0, 1 << 22)\n"
        "region.view(0, 1 << 22)[:] = 1\n"
        "try: region.check()\n"
        "except Exception as error: print(error.code.name)\n"
    )
    mounted = f'mount -t tmpfs -o size=1m none /dev/shm && exec {sys.executable} -c "$1"'
    ended = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, "sh", script],
        capture_output=True, check=False, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert (ended.stdout, ended.returncode) == ("RESOURCE_EXHAUSTED\n", 0), ended.stderr


def _model(
    nodes: list[onnx.NodeProto], inputs: dict[str, int], outputs: dict[str, tuple[int, list[str | int | None]]]
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, dtype, ["n"]) for name, dtype in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in outputs.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


SIGMOID = _model(
    [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Sigmoid", ["s"], ["y"])],
    {"x": TensorProto.FLOAT},
    {"y": (TensorProto.FLOAT, ["n"])},
)
ECHO = _model(
    [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Neg", ["i"], ["j"])],
    {"x": TensorProto.FLOAT, "i": TensorProto.INT64},
    {"y": (TensorProto.FLOAT, ["n"]), "j": (TensorProto.INT64, ["n"])},
)
DOUBLED = _model(
    [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)],
    {"x": TensorProto.FLOAT},
    {"y": (TensorProto.FLOAT, ["n"])},  # a lie: it is twice as long
)


@pytest.fixture
def open_instance(tmp_path: Path) -> Iterator[OpenInstance]:
    opened = []

    def open_one(model: bytes, threads: str = "1") -> Instance:
        (tmp_path / "models").mkdir()
        path = tmp_path / "models" / "model.onnx"
        path.write_bytes(model)
        store = EngineStore(tmp_path)
        manifest = store.manifest(store.publish(model=path))
        instance = OnnxRuntimeLoader().load(manifest, path.parent, {"intraOpThreads": threads}).open_instance()
        opened.append(instance)
        return instance

    yield open_one
    for instance in opened:
        instance.close()


def _spec(name: str, dtype: DType = DType.FP32) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=(-1,), symbols=("n",))


class _Request:
    """One request of float vectors in region `r`: x at 0 unless said, y at `out`."""

    def __init__(self, region: SystemRegion, count: int, *, at: int = 0, out: int, dtype: DType = DType.FP32) -> None:
        size = count * dtype.numpy.itemsize
        table = RegionTable()
        table.register("r", lambda: region)
        names = ("x", "y") if dtype is DType.FP32 else ("i", "j")
        header = InputHeader(_spec(names[0], dtype), (count,), TensorPlace("r", at, size))
        outputs = {names[1]: _spec(names[1], dtype)}
        self.name = names[1]
        self.tensors = SharedTensors(table, (header,), {self.name: TensorPlace("r", out, 2 * size)}, outputs)

    def run(self, instance: Instance, **others: Array) -> Array:
        inputs = self.tensors.read_inputs(instance) | others
        outputs = self.tensors.infer(instance, inputs, profile=0, outputs=[self.name])
        self.tensors.write_outputs(outputs)
        output = outputs[self.name]
        assert isinstance(output, np.ndarray)
        return output


def _inside(array: Array, region: SystemRegion) -> bool:
    return np.shares_memory(array, region.view(0, SIZE))


def test_floats_are_used_in_place_and_integers_are_copied(open_instance: OpenInstance, region: SystemRegion) -> None:
    instance = open_instance(ECHO)
    x, i = np.arange(8, dtype=np.float32), np.arange(8)
    region.view(0, 32).view(np.float32)[:] = x
    region.view(64, 64).view(np.int64)[:] = i
    floats = _Request(region, 8, out=1024)
    (array,) = floats.tensors.read_inputs(instance).values()
    assert isinstance(array, np.ndarray)
    assert _inside(array, region)
    assert _inside(floats.run(instance, i=i), region)
    assert (region.view(1024, 32).view(np.float32) == -x).all()
    integers = _Request(region, 8, at=64, out=2048, dtype=DType.INT64)
    (array,) = integers.tensors.read_inputs(instance).values()
    assert isinstance(array, np.ndarray)
    assert not _inside(array, region)
    assert not _inside(integers.run(instance, x=x), region)
    assert (region.view(2048, 64).view(np.int64) == -i).all()


@pytest.mark.parametrize(("at", "out"), [(0, 0), (0, 4), (16, 4), (0, 1026), (2, 1026)])
def test_places_that_overlap_or_are_not_aligned_get_the_same_values(
    open_instance: OpenInstance, region: SystemRegion, at: int, out: int
) -> None:
    x = np.linspace(-3, 3, 8, dtype=np.float32)
    region.view(at, 32)[:] = x.view(np.uint8)
    instance = open_instance(ECHO)
    output = _Request(region, 8, at=at, out=out).run(instance, i=np.arange(8))
    assert not _inside(output, region)
    assert (np.frombuffer(region.view(out, 32).tobytes(), np.float32) == -x).all()


def test_an_output_that_has_another_shape_than_declared_is_right(
    open_instance: OpenInstance, region: SystemRegion
) -> None:
    instance = open_instance(DOUBLED)
    region.view(0, 32).view(np.float32)[:] = np.arange(8)
    request = _Request(region, 8, out=64)
    for _ in range(2):
        assert request.run(instance).shape == (16,)
        assert region.view(64, 64).view(np.float32).tolist() == [*range(8), *range(8)]
    assert not instance.works_in_place("y")


def test_no_tensor_of_a_model_that_sorts_is_used_in_place(
    open_instance: OpenInstance, region: SystemRegion, tmp_path: Path
) -> None:
    k = helper.make_node("Constant", [], ["k"], value_ints=[1])
    top = helper.make_node("TopK", ["x", "k"], ["y", "where"])
    model = _model([k, top], {"x": TensorProto.FLOAT}, {"y": (TensorProto.FLOAT, ["m"])})
    instance = open_instance(model)
    assert not instance.works_in_place("x")
    region.view(0, 32).view(np.float32)[:] = np.arange(8)
    _Request(region, 8, out=64).run(instance)
    assert region.view(64, 4).view(np.float32).tolist() == [7]
    path = tmp_path / "sigmoid.onnx"
    path.write_bytes(SIGMOID)
    assert not has_sorting_nodes(path)


def test_memory_that_goes_under_an_inference_fails_that_one_on_every_thread_of_the_engine(
    open_instance: OpenInstance, region: SystemRegion, block: SharedMemory
) -> None:
    instance = open_instance(SIGMOID, threads="3")
    count = SIZE // 4 // 4
    request = _Request(region, count, out=SIZE // 2)
    request.run(instance)
    inputs = request.tensors.read_inputs(instance)
    _truncate(block, 0)
    # All of the input and of the output is gone, so each thread of ONNX Runtime touches what is not there.
    done: list[dict[str, object]] = []
    counted = threading.Thread(
        target=lambda: done.append(dict(request.tensors.infer(instance, inputs, profile=0, outputs=["y"])))
    )
    counted.start()
    counted.join()
    assert [list(outputs) for outputs in done] == [["y"]]
    with pytest.raises(ProtocolError, match="has become smaller"):
        request.tensors.write_outputs(done[0])  # type: ignore[arg-type]
    # The engine is as it was.
    x = np.zeros(4, np.float32)
    y = instance.infer({"x": x}, profile=0, outputs=["y"])["y"]
    assert isinstance(y, np.ndarray)
    assert y.shape == (4,)
