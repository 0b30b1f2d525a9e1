"""What every test of the build needs: a store, a scratch folder, real preparations and requests for them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.backends import Backend, Precision, PrecisionPolicy
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_contract.preparation import ModelSource, Preparation, PreparationRequest
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.verification import VerificationPolicy
from enginesmith_runtime.build.wire import ChildJob
from enginesmith_runtime.engines.registry import installed_toolchains
from enginesmith_runtime.prepare.pipeline import prepare
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.open import open_store

PrepareModel = Callable[..., Preparation]
MakeRequest = Callable[..., BuildRequest]
SmallModel = Callable[..., Path]
StartBuild = Callable[..., "subprocess.Popen[str]"]

_SMALL_PROFILE = Profile(inputs={"x": ShapeRange(min=(1, 4), opt=(2, 4), max=(8, 4))})

_OCR_PROFILES = {
    "det": Profile(inputs={"x": ShapeRange(min=(1, 3, 64, 64), opt=(1, 3, 96, 160), max=(1, 3, 160, 160))}),
    "rec": Profile(inputs={"x": ShapeRange(min=(1, 3, 48, 40), opt=(2, 3, 48, 160), max=(4, 3, 48, 320))}),
    "cls": Profile(inputs={"x": ShapeRange(min=(1, 3, 48, 192), opt=(2, 3, 48, 192), max=(4, 3, 48, 192))}),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store in a folder."""
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return the scratch folder of builds."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def prepare_model(store: Store, tmp_path: Path) -> PrepareModel:
    """Return a short form of `prepare`: `prepare_model(path, profile, precision=Precision.FP16)`."""

    def run(
        model: Path,
        profile: Profile = _SMALL_PROFILE,
        precision: Precision = Precision.FP32,
        verification: VerificationPolicy | None = None,
    ) -> Preparation:
        request = PreparationRequest(
            source=ModelSource(uri=str(model)),
            profiles=(profile,),
            precision=PrecisionPolicy(default=precision),
            verification=verification or VerificationPolicy(),
        )
        return prepare(request, store, tmp_path / "preparing", SilentReporter(), base=tmp_path)

    return run


@pytest.fixture
def prepare_ocr(ocr_models: Path, prepare_model: PrepareModel) -> PrepareModel:
    """Return a preparer of the real models, by name: `prepare_ocr("rec")`."""

    def run(name: str, **fields: Precision) -> Preparation:
        return prepare_model(ocr_models / f"{name}.onnx", _OCR_PROFILES[name], **fields)

    return run


@pytest.fixture
def make_request(tmp_path: Path) -> MakeRequest:
    """Return a maker of requests for an installed toolchain.

    `make_request(preparation, Backend.TENSORRT_RTX, options={...}, hardware={...}, verification={...})`
    """

    def make(preparation: Preparation, backend: Backend = Backend.ONNXRUNTIME, **fields: object) -> BuildRequest:
        toolchain = next(one for one in installed_toolchains() if one.backend is backend)
        inputs = EngineKeyInputs(
            preparation_key=preparation.preparation_key,
            backend=backend,
            backend_version=toolchain.version,
            cuda=toolchain.cuda,
            provider=toolchain.provider,
        )
        document = {
            "engine_key": engine_key(inputs),
            "key_inputs": inputs,
            "store": str(tmp_path / "store"),
            "toolchain": toolchain,
            **fields,
        }
        return BuildRequest.model_validate(document)

    return make


@pytest.fixture
def small_model(tmp_path: Path) -> SmallModel:
    """Return a writer of relu(x @ w), x of [n, 4]: `small_model("name.onnx", scale=2.0)`."""

    def write(name: str = "small.onnx", *, scale: float = 1.0) -> Path:
        weights = np.random.default_rng(3).standard_normal((4, 5)).astype(np.float32) * np.float32(scale)
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["b"], name="product"), helper.make_node("Relu", ["b"], ["y"])],
            "small",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
            [numpy_helper.from_array(weights, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return write


@pytest.fixture
def small_request(small_model: SmallModel, prepare_model: PrepareModel, make_request: MakeRequest) -> BuildRequest:
    """Return a request for the small model on the CPU."""
    return make_request(prepare_model(small_model()))


@pytest.fixture
def job(
    small_model: SmallModel,
    prepare_model: PrepareModel,
    make_request: MakeRequest,
    store: Store,
    work: Path,
) -> ChildJob:
    """Return a job for the small model, its files in the scratch folder."""
    preparation = prepare_model(small_model())
    for folder in ("engine", "references"):
        (work / folder).mkdir()
    store.get_files((one.file for one in preparation.references), work / "references")
    return ChildJob(
        request=make_request(preparation),
        preparation=preparation,
        model=str(store.get_files(preparation.model, work / "model")),
        output=str(work / "engine"),
        references=str(work / "references"),
        answer=str(work / "answer.json"),
    )


@pytest.fixture
def start_build(tmp_path: Path, work: Path) -> Iterator[StartBuild]:
    """Return a starter of `python -m enginesmith_runtime.build`, JSON lines on its standard error.

    Its termination message goes to `termination-<number>.json` in the test's folder, counted from 0.
    """
    started: list[subprocess.Popen[str]] = []

    def start(request: BuildRequest) -> "subprocess.Popen[str]":
        number = len(started)
        path = tmp_path / f"request-{number}.json"
        path.write_bytes(request.to_json())
        process = subprocess.Popen(
            [sys.executable, "-m", "enginesmith_runtime.build", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ
            | {
                "TMPDIR": str(work),
                "ENGINESMITH_LOG_FORMAT": "json",
                "ENGINESMITH_TERMINATION_LOG": str(tmp_path / f"termination-{number}.json"),
            },
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def read_termination(tmp_path: Path) -> Callable[..., dict[str, object]]:
    """Return a reader of a termination message, by the number of its build."""

    def read(number: int = 0) -> dict[str, object]:
        document: dict[str, object] = json.loads((tmp_path / f"termination-{number}.json").read_bytes())
        return document

    return read
