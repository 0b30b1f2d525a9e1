"""What every test of the preparation needs: a store, a working folder, and a short way to ask."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from enginesmith_contract.preparation import ModelSource, Preparation, PreparationRequest
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_runtime.prepare.pipeline import prepare
from enginesmith_runtime.progress import Reporter, SilentReporter
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.open import open_store

Points = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
MakeProfile = Callable[..., Profile]
Prepare = Callable[..., Preparation]
Tensor = tuple[int, Sequence[int | str | None]]
MakeModel = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store in a folder."""
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def make_profile() -> MakeProfile:
    """Return a maker of profiles: `make_profile(x=(min, opt, max))`."""

    def make(name: str = "default", **inputs: Points) -> Profile:
        ranges = {key: ShapeRange(min=low, opt=best, max=high) for key, (low, best, high) in inputs.items()}
        return Profile(name=name, inputs=ranges)

    return make


@pytest.fixture
def prepare_model(store: Store, tmp_path: Path) -> Prepare:
    """Return a short form of `prepare`: `prepare_model(path, profile, ..., precision=...)`."""

    def run(model: Path, *profiles: Profile, reporter: Reporter | None = None, **fields: object) -> Preparation:
        source = ModelSource(uri=str(model))
        request = PreparationRequest.model_validate({"source": source, "profiles": profiles, **fields})
        return prepare(request, store, tmp_path / "work", reporter or SilentReporter(), base=tmp_path)

    return run


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Return a maker of small ONNX files.

    `make_model([node, ...], inputs={"x": (dtype, shape)}, outputs={...}, weights={"w": array})`; a shape's strings are
    names of open dimensions, None an unnamed one.
    """

    def make(
        nodes: Sequence[onnx.NodeProto],
        *,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        weights: Mapping[str, np.ndarray[Any, Any]] | None = None,
        opset: int = 17,
        domains: Sequence[str] = (),
        name: str = "model.onnx",
    ) -> Path:
        graph = helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info(key, *tensor) for key, tensor in inputs.items()],
            [helper.make_tensor_value_info(key, *tensor) for key, tensor in outputs.items()],
            [numpy_helper.from_array(array, key) for key, array in (weights or {}).items()],
        )
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return path

    return make
