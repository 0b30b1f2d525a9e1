"""Engines of tiny models, built without the child process, and manifests for them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tests.engines.nvinfer_bench import MakeBench, bench_maker

from enginesmith_contract.backends import Backend, Hardware
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_contract.manifest import Manifest, Timings
from enginesmith_contract.preparation import Batching, Preparation
from enginesmith_contract.profiles import Profile
from enginesmith_contract.store_layout import StoredFile
from enginesmith_contract.tensors import ModelFacts, TensorSpec
from enginesmith_contract.verification import Verification, VerificationStatus
from enginesmith_runtime.engines.interface import BuildJob, BuiltEngine
from enginesmith_runtime.engines.registry import installed_toolchains

WriteModel = Callable[..., Path]
MakeJob = Callable[..., BuildJob]
MakeManifest = Callable[..., Manifest]

_NO_DIGEST = "0" * 64


@pytest.fixture(params=["pycuda", "cuda-bindings"])
def make_bench(request: pytest.FixtureRequest) -> MakeBench:
    """Return a maker of engines on fakes: `make_bench(network, cudaGraphs="4", free=1 << 20)`."""
    return bench_maker(pycuda=request.param == "pycuda")


@pytest.fixture
def write_model(tmp_path: Path) -> WriteModel:
    """Return a writer of models: `write_model([nodes], inputs=[value infos], outputs=[...], w=array)`."""

    def write(
        nodes: Sequence[onnx.NodeProto],
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        **weights: np.ndarray,
    ) -> Path:
        tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
        graph = helper.make_graph(list(nodes), "tiny", list(inputs), list(outputs), tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        path = tmp_path / "tiny.onnx"
        onnx.save(model, path)
        return path

    return write


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    """Return a maker of jobs: `make_job(model, inputs, outputs, backend=..., profiles=..., hardware=...)`."""

    def make(
        model: Path,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        backend: Backend = Backend.ONNXRUNTIME,
        profiles: tuple[Profile, ...] = (Profile(),),
        **options: object,
    ) -> BuildJob:
        toolchain = next(one for one in installed_toolchains() if one.backend is backend)
        key_inputs = EngineKeyInputs(
            preparation_key=_NO_DIGEST, backend=backend, backend_version=toolchain.version, provider=toolchain.provider
        )
        request = BuildRequest.model_validate(
            {
                "engine_key": engine_key(key_inputs),
                "key_inputs": key_inputs,
                "store": "",
                "toolchain": toolchain,
                **options,
            }
        )
        preparation = Preparation(
            preparation_key=_NO_DIGEST,
            source_digest=_NO_DIGEST,
            facts=ModelFacts(inputs=inputs, outputs=outputs, opset=17, size_bytes=model.stat().st_size),
            model=(StoredFile(path=model.name, digest=_NO_DIGEST, size_bytes=1),),
            profiles=profiles,
            exercises=(),
            references=(),
            batching=Batching(proved=False),
        )
        output = tmp_path / "engine"
        output.mkdir(exist_ok=True)
        return BuildJob(request=request, preparation=preparation, model=model, output=output, device=Hardware())

    return make


@pytest.fixture
def make_manifest() -> MakeManifest:
    """Return a maker of the manifest of what a builder made: `make_manifest(job, built)`."""

    def make(job: BuildJob, built: BuiltEngine) -> Manifest:
        return Manifest(
            engine_key=job.request.engine_key,
            key_inputs=job.request.key_inputs,
            source_digest=_NO_DIGEST,
            engine_digest=_NO_DIGEST,
            files=tuple(
                StoredFile(path=str(path.relative_to(job.output)), digest=_NO_DIGEST, size_bytes=1)
                for path in built.files
            ),
            inputs=built.inputs,
            outputs=built.outputs,
            inspector=built.inspector,
            profiles=job.preparation.profiles,
            batching=Batching(proved=False),
            toolchain=job.request.toolchain,
            hardware=Hardware(),
            runs_on=built.runs_on,
            timings=Timings(build_seconds=0.0),
            verification=Verification(status=VerificationStatus.NOT_RUN),
            created_at="",
        )

    return make
