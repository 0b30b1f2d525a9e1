"""Engines to pull: a small model, prepared and built for ONNX Runtime as for two GPUs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.backends import Backend
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import ModelSource, PreparationRequest
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.pull_request import PullableEngine, PullRequest
from enginesmith_contract.serve_request import ModelOptions, ServerOptions
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.engines.registry import installed_toolchains
from enginesmith_runtime.prepare.pipeline import prepare
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.open import open_store

BuildEngine = Callable[..., Manifest]
MakePull = Callable[..., PullRequest]


@pytest.fixture
def build_engine(tmp_path: Path) -> BuildEngine:
    """Builds into the store at `tmp_path/store`: `build_engine("NVIDIA-L4")`; plugins are digests in its key alone."""
    weights = np.eye(4, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    uri = str(tmp_path / "store")
    profile = Profile(inputs={"x": ShapeRange(min=(1, 4), opt=(2, 4), max=(8, 4))})
    preparation = PreparationRequest(source=ModelSource(uri=str(path)), profiles=(profile,))

    def built(product: str | None = None, plugins: tuple[str, ...] = ()) -> Manifest:
        prepared = prepare(preparation, open_store(uri), tmp_path, SilentReporter())
        toolchain = next(one for one in installed_toolchains() if one.backend is Backend.ONNXRUNTIME)
        inputs = EngineKeyInputs(
            preparation_key=prepared.preparation_key,
            backend=toolchain.backend,
            backend_version=toolchain.version,
            cuda=toolchain.cuda,
            provider=toolchain.provider,
            gpu_product=product,
            plugins=plugins,
        )
        request = BuildRequest(engine_key=engine_key(inputs), key_inputs=inputs, store=uri, toolchain=toolchain)
        return build(request, tmp_path, SilentReporter())

    return built


@pytest.fixture
def make_pull(tmp_path: Path) -> MakePull:
    """Makes a request for stored engines, into the folder `tmp_path/pod/engines`."""

    def make(*manifests: Manifest, store: str = "", **fields: object) -> PullRequest:
        engines = tuple(
            PullableEngine(
                engine_key=manifest.engine_key,
                engine_digest=manifest.engine_digest,
                product=manifest.key_inputs.gpu_product,
                arch=manifest.key_inputs.arch,
            )
            for manifest in manifests
        )
        document = {
            "store": store or (tmp_path / "store").as_uri(),
            "backend": Backend.ONNXRUNTIME,
            "engines": engines,
            "into": str(tmp_path / "pod/engines"),
            "model": ModelOptions(name="small", target="l4"),
            "server": ServerOptions(address="127.0.0.1:0", health_address="127.0.0.1:0"),
            **fields,
        }
        return PullRequest.model_validate(document)

    return make
