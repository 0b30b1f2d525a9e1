"""A model over protobuf's 2 GiB goes the whole way by path, its weights in a file of their own."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.preparation import ExerciseStatus
from enginesmith_runtime.store.interface import Store

Make = Callable[..., Any]
F = TensorProto.FLOAT

_SIDE = 8192  # a weight of 256 MiB
_LAYERS = 10


@pytest.mark.slow
@pytest.mark.extended
def test_a_model_of_2_5_gib_is_prepared_in_fp16(
    prepare_model: Make, make_profile: Make, store: Store, tmp_path: Path
) -> None:
    path = _large_model(tmp_path / "source")
    profile = make_profile(x=((1, _SIDE), (1, _SIDE), (2, _SIDE)))
    try:
        values = {"inputs": {"x": {"range": [-1, 1]}}}
        preparation = prepare_model(path, profile, precision={"default": "fp16"}, verification=values)
        assert preparation.facts.size_bytes > 2 << 30
        assert [entry.status for entry in preparation.exercises] == [ExerciseStatus.PASSED] * 3
        assert preparation.batching.proved
        assert [file.path for file in preparation.model] == ["model.onnx", "prepared-weights.bin"]
        assert preparation.model[0].size_bytes < 1 << 20
        assert (1 << 30) < preparation.model[1].size_bytes < (2 << 30)
        opened = onnx.load(store.get_files(preparation.model, tmp_path / "out"), load_external_data=False)
        assert {tensor.data_type for tensor in opened.graph.initializer} == {TensorProto.FLOAT16}
        # ru_maxrss is in KiB on Linux; it counts mapped files too.
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 8 << 20
    finally:
        for file in (*tmp_path.rglob("*.bin"), *tmp_path.rglob("blobs/sha256/*")):
            file.unlink(missing_ok=True)


def _large_model(folder: Path) -> Path:
    """Write ten square layers whose weights are holes in a sparse file but for every 512th row."""
    folder.mkdir()
    size = _SIDE * _SIDE * 4
    graph = helper.make_graph(
        [helper.make_node("MatMul", [f"a{i}" if i else "x", f"w{i}"], [f"a{i + 1}"], name=f"m{i}") for i in range(10)]
        + [helper.make_node("Relu", [f"a{_LAYERS}"], ["y"], name="end")],
        "large",
        [helper.make_tensor_value_info("x", F, ["n", _SIDE])],
        [helper.make_tensor_value_info("y", F, ["n", _SIDE])],
    )
    for number in range(_LAYERS):
        tensor = graph.initializer.add(name=f"w{number}", data_type=F, dims=[_SIDE, _SIDE])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights.bin"), ("offset", str(number * size)), ("length", str(size))):
            tensor.external_data.add(key=key, value=value)
    weights = np.memmap(folder / "weights.bin", np.float32, mode="w+", shape=(_LAYERS, _SIDE, _SIDE))
    rows = weights[:, ::512, :]
    rows[:] = np.random.default_rng(0).normal(0, rows.shape[1] ** -0.5, rows.shape)
    weights.flush()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"
