"""Models with a normalisation in their graph: every builder takes the pixels, and the engine passes its gate."""

from collections.abc import Callable
from pathlib import Path

import pytest

from enginesmith_contract.backends import Backend, Precision, PrecisionPolicy
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.preparation import ModelSource, Preparation, PreparationRequest
from enginesmith_contract.preprocess import Preprocess
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.tensors import DType
from enginesmith_contract.verification import VerificationStatus
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.prepare.pipeline import prepare
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.interface import Store

MakeRequest = Callable[..., BuildRequest]

pytestmark = pytest.mark.slow

PIXELS = Preprocess(input="x", source="uint8-nhwc", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
LINES = Profile(inputs={"x": ShapeRange(min=(1, 48, 192, 3), opt=(2, 48, 192, 3), max=(4, 48, 192, 3))})


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_a_real_model_that_takes_pixels_builds_for_onnxruntime_and_for_tensorrt_for_rtx(
    precision: Precision, ocr_models: Path, store: Store, work: Path, make_request: MakeRequest
) -> None:
    preparation = _prepare(ocr_models / "cls.onnx", precision, store, work)
    manifest = build(make_request(preparation), work, SilentReporter())
    assert manifest.verification.status is VerificationStatus.PASSED
    plan = build(make_request(preparation, Backend.TENSORRT_RTX), work, SilentReporter())
    for one in (manifest, plan):
        (spec,) = one.inputs
        assert (spec.name, spec.dtype, spec.shape) == ("x", DType.UINT8, (-1, -1, -1, 3))


def _prepare(model: Path, precision: Precision, store: Store, work: Path) -> Preparation:
    request = PreparationRequest(
        source=ModelSource(uri=str(model)),
        preprocess=(PIXELS,),
        profiles=(LINES,),
        precision=PrecisionPolicy(default=precision),
    )
    return prepare(request, store, work / "preparing", SilentReporter())
