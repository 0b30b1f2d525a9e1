"""INT8 from `spec.precision` to a stored preparation: calibrated, placed for each backend, with held-out samples."""

import io
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from typing_extensions import override

from enginesmith_contract.backends import Backend
from enginesmith_contract.errors import ModelError, SourceError, SpecError
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.profiles import Profile
from enginesmith_contract.store_layout import StoredFile
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.interface import Store

Prepare = Callable[..., Preparation]
F = TensorProto.FLOAT
CLASSES = 10


class Shares(SilentReporter):
    """Keeps the shares of the stage "quantize" that were reported."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self._counts = False

    @override
    def begin(self, stage: str, detail: str = "") -> None:
        self._counts = stage == "quantize"

    @override
    def advance(self, fraction: float, detail: str = "") -> None:
        if self._counts:
            self.shares.append(fraction)


@pytest.fixture
def classifier(make_model: Callable[..., Path]) -> Path:
    """Return a small convolutional classifier with a residual block."""
    random = np.random.default_rng(7)

    def weights(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return random.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)

    node = helper.make_node
    return make_model(
        [
            node("Conv", ["x", "w1", "b1"], ["c1"], name="stem/conv", pads=[1, 1, 1, 1]),
            node("Relu", ["c1"], ["r1"], name="stem/relu"),
            node("Conv", ["r1", "w2"], ["c2"], name="block/conv", pads=[1, 1, 1, 1]),
            node("Add", ["c2", "r1"], ["a"], name="block/add"),
            node("Relu", ["a"], ["r2"], name="block/relu"),
            node("GlobalAveragePool", ["r2"], ["p"], name="head/pool"),
            node("Flatten", ["p"], ["f"], name="head/flatten"),
            node("Gemm", ["f", "w3"], ["logits"], name="head/gemm", transB=1),
            node("Softmax", ["logits"], ["y"], name="head/softmax"),
        ],
        inputs={"x": (F, ["n", 3, 8, 8])},
        outputs={"y": (F, ["n", CLASSES])},
        weights={
            "w1": weights(16, 3, 3, 3),
            "b1": weights(16, 1).reshape(16),
            "w2": weights(16, 16, 3, 3),
            "w3": 4 * weights(CLASSES, 16),
        },
    )


@pytest.fixture
def profile(make_profile: Callable[..., Profile]) -> Profile:
    return make_profile(x=((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)))


def write_samples(folder: Path, count: int = 24, scale: float = 1.0, seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(count):
        array = scale * random.normal(0, 1, (1, 3, 8, 8)).astype(np.float32)
        np.savez(folder / f"{number:03}.npz", x=array)
    return folder


def operators(store: Store, files: tuple[StoredFile, ...], folder: Path) -> tuple[onnx.ModelProto, dict[str, int]]:
    model = onnx.load(store.get_files(files, folder))
    kinds = [node.op_type for node in model.graph.node]
    return model, {kind: kinds.count(kind) for kind in kinds}


def eight_bit(model: onnx.ModelProto) -> set[str]:
    """Return the nodes of which value and weight come from 8 bits."""
    made = {name for one in model.graph.node if one.op_type == "DequantizeLinear" for name in one.output}
    return {node.name for node in model.graph.node if len(made.intersection(node.input)) >= 2}


def test_a_model_is_quantised_for_each_backend_and_keeps_held_out_samples(
    prepare_model: Prepare, classifier: Path, profile: Profile, store: Store, tmp_path: Path
) -> None:
    write_samples(tmp_path / "data")

    def prepared(*keep: str, **calibration: object) -> Preparation:
        precision = {"default": "int8", "keep": keep, "calibration": {"source": "data", **calibration}}
        return prepare_model(classifier, profile, precision=precision)

    done = prepared()
    tensorrt, of_tensorrt = operators(store, done.model, tmp_path / "a")
    _, of_onnxruntime = operators(store, done.onnxruntime_model or (), tmp_path / "b")
    assert eight_bit(tensorrt) == {"stem/conv", "block/conv", "head/gemm"}
    assert of_onnxruntime["QuantizeLinear"] > of_tensorrt["QuantizeLinear"]
    # The model for ONNX Runtime has no FP16.
    assert [line for line in done.warnings_for([Backend.TENSORRT]) if "in FP32" in line]
    assert not [line for line in done.warnings_for([Backend.ONNXRUNTIME]) if "FP16" in line or "FP32" in line]
    samples = [one for one in done.references if one.is_sample]
    assert 4 <= len(samples) <= 6
    with np.load(store.get_files([samples[0].file], tmp_path / "c")) as stored:
        assert set(stored) == {"input:x", "output:y"}

    other = prepared("stem/conv", "from:r2", method="minMax")
    assert eight_bit(operators(store, other.model, tmp_path / "d")[0]) == {"block/conv"}
    assert other.kept["head/gemm"] == "precision.keep names it (from:r2)"
    assert len(list(store.list_pointers("histograms/"))) == 1
    with pytest.raises(ModelError, match=r"precision\.keep: .*: \*: nothing is left in int8") as refused:
        prepared("*")
    assert refused.value.reason == "NotQuantisable"

    (tmp_path / "data").rename(tmp_path / "moved")
    assert prepared(source="moved") == done


def test_nodes_whose_values_leave_fp16_in_samples_alone_stay_in_fp32(
    prepare_model: Prepare, make_model: Callable[..., Path], make_profile: Callable[..., Profile], tmp_path: Path
) -> None:
    """All features of a sample are large together, so their sums are; half of those of noise are 0."""
    random = np.random.default_rng(8)
    weights = {
        "w1": 60 * np.eye(256) + random.normal(0, 0.01, (256, 256)),
        "w2": 5 * np.sign(random.normal(0, 1, 32)) + random.normal(0, 0.1, (256, 32)),
        "w3": random.normal(0, 0.2, (32, 10)),
        "small": np.array(1e-3),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["wide"], name="first"),
        helper.make_node("Relu", ["wide"], ["features"], name="relu"),
        helper.make_node("MatMul", ["features", "w2"], ["sums"], name="sums"),
        helper.make_node("Mul", ["sums", "small"], ["scaled"], name="scale"),
        helper.make_node("Tanh", ["scaled"], ["bounded"], name="tanh"),
        helper.make_node("MatMul", ["bounded", "w3"], ["y"], name="last"),
    ]
    path = make_model(
        nodes,
        inputs={"x": (F, ["n", 256])},
        outputs={"y": (F, ["n", 10])},
        weights={name: array.astype(np.float32) for name, array in weights.items()},
    )
    (tmp_path / "data").mkdir()
    for number in range(24):
        sample = (-1) ** number * random.uniform(0.8, 1, (1, 256))
        np.savez(tmp_path / "data" / f"{number:03}.npz", x=sample.astype(np.float32))
    precision = {"default": "int8", "calibration": {"source": "data"}}
    done = prepare_model(path, make_profile(x=((1, 256), (2, 256), (4, 256))), precision=precision)
    said = [line for line in done.tensorrt_warnings if "FP16 ends at 65504 (calibration data)" in line]
    assert any("scale" in line for line in said), done.tensorrt_warnings


def test_a_model_of_which_nothing_is_int8_for_onnx_runtime_says_so(
    prepare_model: Prepare, make_model: Callable[..., Path], make_profile: Callable[..., Profile], tmp_path: Path
) -> None:
    random = np.random.default_rng(9)
    weight = random.normal(0, 0.3, (32, 10)).astype(np.float16)
    kind = TensorProto.FLOAT16
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    path = make_model([node], inputs={"x": (kind, ["n", 32])}, outputs={"y": (kind, ["n", 10])}, weights={"w": weight})
    (tmp_path / "data").mkdir()
    for number in range(20):
        np.savez(tmp_path / "data" / f"{number}.npz", x=random.normal(0, 1, (1, 32)).astype(np.float16))
    precision = {"default": "int8", "calibration": {"source": "data"}}
    done = prepare_model(path, make_profile(x=((1, 32), (2, 32), (4, 32))), precision=precision)
    assert any("no node computes in INT8 for ONNX Runtime" in line for line in done.warnings), done.warnings


def test_data_that_gives_no_range_is_refused_with_the_tensor(
    prepare_model: Prepare, classifier: Path, profile: Profile, tmp_path: Path
) -> None:
    write_samples(tmp_path / "data", scale=0.0)
    with pytest.raises((ModelError, SpecError)) as refused:
        prepare_model(classifier, profile, precision={"default": "int8", "calibration": {"source": "data"}})
    assert refused.value.reason == "CalibrationUnusable"
    assert "x: 0 in all" in refused.value.why


def test_calibration_data_with_another_digest_is_refused(
    prepare_model: Prepare, classifier: Path, profile: Profile, tmp_path: Path
) -> None:
    write_samples(tmp_path / "data")
    calibration = {"source": "data", "digest": "0" * 64}
    with pytest.raises(SourceError) as refused:
        prepare_model(classifier, profile, precision={"default": "int8", "calibration": calibration})
    assert refused.value.reason == "DigestMismatch"


def test_images_in_an_archive_calibrate_a_model_that_reads_pixels(
    prepare_model: Prepare, classifier: Path, make_profile: Callable[..., Profile], store: Store, tmp_path: Path
) -> None:
    random = np.random.default_rng(5)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for number in range(20):
            pixels = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8)).save(pixels, "JPEG")
            archive.writestr(f"{number}.jpg", pixels.getvalue())
    reporter = Shares()
    done = prepare_model(
        classifier,
        make_profile(x=((1, 8, 8, 3), (2, 8, 8, 3), (4, 8, 8, 3))),
        reporter=reporter,
        preprocess=[{"input": "x", "from": "uint8-nhwc", "mean": [0.5] * 3, "std": [0.25] * 3}],
        precision={"default": "int8", "calibration": {"source": "data.zip", "images": {"size": [8, 8]}}},
    )
    assert done.calibration_digest == sha256((tmp_path / "data.zip").read_bytes()).hexdigest()
    samples = [one for one in done.references if one.is_sample]
    with np.load(store.get_files([samples[0].file], tmp_path / "sample")) as stored:
        assert (stored["input:x"].shape, stored["input:x"].dtype) == ((1, 8, 8, 3), np.uint8)
    assert any(0 < share < 1 for share in reporter.shares)
