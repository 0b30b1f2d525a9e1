"""The first tensor of a quantised model whose signal-to-quantization-noise ratio falls."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from tests.prepare.oriented_classifier import (
    SIZE,
    WRONG_TENSOR,
    Ranges,
    break_ranges,
    learn_ranges,
    quantise,
    samples,
    write_classifier,
)

from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_contract.verification import FirstFall
from enginesmith_runtime.prepare.jobs import Feed
from enginesmith_runtime.prepare.quantize.first_fall import locate

_FEED = Feed(
    facts=ModelFacts(
        inputs=(TensorSpec(name="image", dtype=DType.FP32, shape=(-1, 1, SIZE, SIZE)),),
        outputs=(TensorSpec(name="probabilities", dtype=DType.FP32, shape=(-1, 8)),),
        opset=17,
        size_bytes=1,
    )
)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ranges]:
    """Return the FP32 classifier with its ranges."""
    path = write_classifier(tmp_path_factory.mktemp("classifier") / "stripes.onnx")
    return path, learn_ranges(path)


def _locate(source: Path, quantised: Path) -> FirstFall | None:
    return locate(source, quantised, _FEED, (inputs for _, inputs in samples(3000, 4)))


@pytest.mark.parametrize(
    ("how", "tensor"),
    [("zeros", "image"), ("tooWide", "image"), ("shuffled", "features_b"), ("oneTensor", WRONG_TENSOR)],
)
def test_a_broken_calibration_is_located_at_its_first_wrong_tensor(
    classifier: tuple[Path, Ranges], tmp_path: Path, how: str, tensor: str
) -> None:
    path, ranges = classifier
    broken = break_ranges(how, ranges)
    fall = _locate(path, quantise(path, broken, tmp_path / "broken.onnx"))
    assert fall is not None
    assert (fall.tensor, fall.op) == (tensor, "QuantizeLinear")
    assert fall.range == pytest.approx(broken[tensor], rel=1e-3)
    assert fall.sqnr_db < 10 < fall.before_db
    assert f"its range is {fall.range:.3g}" in fall.sentence()


def test_good_ranges_have_no_tensor_that_is_as_far_off(classifier: tuple[Path, Ranges], tmp_path: Path) -> None:
    path, ranges = classifier
    fall = _locate(path, quantise(path, ranges, tmp_path / "good.onnx"))
    assert fall is None or fall.sqnr_db > 10


def test_a_range_that_is_wide_for_some_samples_is_located_by_them(
    classifier: tuple[Path, Ranges], tmp_path: Path
) -> None:
    path, ranges = classifier
    quantised = quantise(path, break_ranges("tooWide", ranges), tmp_path / "wide.onnx")
    stripes = [inputs["image"] for _, inputs in samples(3000, 6)]
    mixed = [{"image": 100 * image} for image in stripes[:3]] + [{"image": image} for image in stripes[3:]]
    fall = locate(path, quantised, _FEED, mixed)
    assert fall is not None
    assert fall.tensor == "image"


def test_a_model_that_is_not_quantised_has_no_fall(classifier: tuple[Path, Ranges]) -> None:
    path, _ = classifier
    assert _locate(path, path) is None


def test_a_tensor_is_found_behind_a_cast_to_fp16(classifier: tuple[Path, Ranges], tmp_path: Path) -> None:
    path, ranges = classifier
    model = onnx.load(quantise(path, break_ranges("oneTensor", ranges), tmp_path / "broken.onnx"))
    quantiser = next(node for node in model.graph.node if node.name == f"{WRONG_TENSOR}_QuantizeLinear")
    casts = [
        helper.make_node("Cast", [WRONG_TENSOR], ["narrow"], name="down", to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["narrow"], ["wide"], name="up", to=TensorProto.FLOAT),
    ]
    quantiser.input[0] = "wide"
    place = list(model.graph.node).index(quantiser)
    for offset, cast in enumerate(casts):
        model.graph.node.insert(place + offset, cast)
    onnx.save(model, tmp_path / "cast.onnx")
    fall = _locate(path, tmp_path / "cast.onnx")
    assert fall is not None
    assert fall.tensor == WRONG_TENSOR
