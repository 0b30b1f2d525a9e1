"""Options that widen or bind an engine: from the document to the key, and from the manifest to the loader's rules."""

from typing import Any

import pytest

from enginesmith_contract.backends import Backend, Hardware, Toolchain
from enginesmith_contract.manifest import Manifest, Timings
from enginesmith_contract.matrix.portability import fits
from enginesmith_contract.preparation import Batching
from enginesmith_contract.verdicts import Verdict
from enginesmith_contract.verification import Verification, VerificationStatus
from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.api.targets import TargetSpec
from enginesmith_operator.planning.desired import engine_candidate

_TOOLCHAIN = Toolchain(name="trt", backend=Backend.TENSORRT, version="10.13.3.9", cuda="12.9")
_L4 = Hardware(product="NVIDIA-L4", compute_capability="8.9", multiprocessors=58, driver="580.95.05")
_L40S = Hardware(product="NVIDIA-L40S", compute_capability="8.9", multiprocessors=142, driver="580.95.05")


def _manifest(build: dict[str, Any]) -> Manifest:
    """Return what would be stored of an engine that was built on an L4 from such a document."""
    spec = InferenceEngineSpec.model_validate({"model": {"uri": "model.onnx"}, "build": build})
    inputs = engine_candidate(spec, TargetSpec(name="l4"), _TOOLCHAIN, _L4).key_inputs("0" * 64)
    return Manifest(
        engine_key="0" * 64,
        key_inputs=inputs,
        source_digest="0" * 64,
        engine_digest="0" * 64,
        files=(),
        inputs=(),
        outputs=(),
        profiles=(),
        batching=Batching(proved=False),
        toolchain=_TOOLCHAIN,
        hardware=_L4,
        timings=Timings(build_seconds=1.0),
        verification=Verification(status=VerificationStatus.PASSED),
        created_at="",
    )


@pytest.mark.parametrize(
    ("build", "want"),
    [
        ({}, {}),
        ({"hardwareCompatibility": "amperePlus"}, {"hardwareCompatibility": "ampere-plus"}),
        (
            {"hardwareCompatibility": "sameComputeCapability", "versionCompatible": True},
            {"hardwareCompatibility": "same-compute-capability", "versionCompatible": "true"},
        ),
        ({"weightStreaming": True, "refittable": True}, {"weightStreaming": "true", "refittable": "true"}),
    ],
)
def test_an_option_is_in_the_key_where_it_differs_from_its_default(build: dict[str, Any], want: dict[str, str]) -> None:
    assert _manifest(build).key_inputs.flags == want


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, {}),
        ({"intraOpThreads": "2", "spinning": "false"}, {}),
        ({"provider.precision": "FP16", "intraOpThreads": "2"}, {"provider.precision": "FP16"}),
    ],
)
def test_of_backend_options_only_those_that_change_the_answers_are_in_the_key(
    options: dict[str, str], want: dict[str, str]
) -> None:
    spec = InferenceEngineSpec.model_validate({"model": {"uri": "model.onnx"}})
    target = TargetSpec(name="cpu", backend=Backend.ONNXRUNTIME, backend_options=options)
    toolchain = Toolchain(name="ort", backend=Backend.ONNXRUNTIME, version="1.32.0", provider="cpu")
    assert engine_candidate(spec, target, toolchain, Hardware()).flags == want


@pytest.mark.parametrize(
    ("build", "device", "version", "want"),
    [
        ({}, _L4, "10.13.3.9", []),
        ({}, _L40S, "10.13.3.9", ["SameProduct"]),
        ({"hardwareCompatibility": "sameComputeCapability"}, _L40S, "10.13.3.9", []),
        ({"hardwareCompatibility": "amperePlus"}, _L40S, "10.13.3.9", []),
        ({}, _L4, "10.14.1.48", ["SameVersion"]),
        ({"versionCompatible": True}, _L4, "10.14.1.48", []),
        ({"versionCompatible": True}, _L4, "10.12.0.36", ["SameVersion"]),
        ({"weightStreaming": True, "refittable": True}, _L40S, "10.14.1.48", ["SameVersion", "SameProduct"]),
    ],
)
def test_the_loader_s_rules_find_what_the_document_said(
    build: dict[str, Any], device: Hardware, version: str, want: list[str]
) -> None:
    answers = fits(_manifest(build), device, version)
    assert [answer.rule for answer in answers if answer.verdict is Verdict.NO] == want
