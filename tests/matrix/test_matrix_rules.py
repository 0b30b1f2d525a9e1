"""Every rule with a yes, a no and an unknown, and the words that a person needs to act on a no."""

from typing import NamedTuple

import pytest

from enginesmith_contract.backends import Backend, Hardware, Precision, Toolchain
from enginesmith_contract.matrix.load import load_matrix
from enginesmith_contract.matrix.rules import RULES, MatrixQuery, check_all, refusals
from enginesmith_contract.verdicts import RuleAnswer, Verdict

MATRIX = load_matrix()
YES, NO, UNKNOWN = Verdict.YES, Verdict.NO, Verdict.UNKNOWN
T4 = Hardware(product="Tesla-T4")
H100 = Hardware(product="NVIDIA-H100-80GB-HBM3", compute_capability="9.0")
V100 = Hardware(product="Tesla-V100-SXM2-16GB")
GH200 = Hardware(product="NVIDIA-GH200-480GB", arch="arm64")
ORIN = Hardware(product="Orin", arch="arm64", driver="unknown.unknown.unknown")


def tensorrt(version: str, cuda: str | None = "12.9") -> Toolchain:
    return Toolchain(name="tensorrt", backend=Backend.TENSORRT, version=version, cuda=cuda)


def rtx(version: str = "1.7.1.116") -> Toolchain:
    return Toolchain(name="rtx", backend=Backend.TENSORRT_RTX, version=version, cuda="13")


def onnxruntime(provider: str = "cpu") -> Toolchain:
    return Toolchain(name="ort", backend=Backend.ONNXRUNTIME, version="1.32.0", provider=provider)


def with_driver(driver: str | None, hardware: Hardware = H100) -> Hardware:
    return hardware.model_copy(update={"driver": driver})


def capability(text: str) -> Hardware:
    return Hardware(product="NVIDIA-Unheard-Of", compute_capability=text)


class Case(NamedTuple):
    """One question to one rule, with fragments of the answer."""

    rule: str
    toolchain: Toolchain
    hardware: Hardware
    want_verdict: Verdict
    want_found: str
    want_wanted: str = ""
    precision: Precision = Precision.FP32
    hardware_compatibility: str = "none"
    version_compatible: bool = False


TOOLCHAIN_CASES = (
    Case("TensorRTKnown", tensorrt("10.13.3.9"), T4, YES, "is of line 10.13.3"),
    Case("TensorRTKnown", tensorrt("12.0.0.1"), T4, UNKNOWN, "12.0.0.1 is not in the matrix, which knows 8.5 to 11.5"),
    Case("TensorRTKnown", tensorrt("10.13.1.5"), T4, UNKNOWN, "not in the matrix"),
    Case("TensorRTKnown", tensorrt("11.5.0.1"), T4, UNKNOWN, "release notes only"),
    Case("TensorRTKnown", rtx(), T4, YES, "1.7.1.116 is in the matrix"),
    Case("TensorRTKnown", rtx("1.9.0.1"), T4, UNKNOWN, "knows 1.7.1.116, not 1.9.0.1"),
    Case("TensorRTKnown", onnxruntime(), Hardware(), YES, "does not apply"),
    Case("BuilderSupported", tensorrt("10.0.1.6"), T4, YES, "builds engines here"),
    Case("BuilderSupported", tensorrt("11.4.0.106"), T4, YES, "builds engines here"),
    Case("BuilderSupported", tensorrt("8.6.1.6", "12.0"), T4, NO, "10.x and 11.x", "TensorRT 10.0 built for CUDA 12"),
    Case("BuilderSupported", tensorrt("9.3.0.1", "12.2"), T4, NO, "not built with", "TensorRT 10.0 built for CUDA 12"),
    Case("BuilderSupported", tensorrt("8.6.1.6"), capability("12.0"), NO, "8.6.1.6", "TensorRT 10.8"),
    Case("BuilderSupported", tensorrt("12.0.0.1"), T4, UNKNOWN, "never tried"),
    Case("BuilderSupported", rtx(), T4, YES, "builds engines here"),
    Case("CudaBuildExists", tensorrt("10.9.0.34", "12.8"), T4, YES, "exists for CUDA 12.8"),
    Case("CudaBuildExists", tensorrt("10.1.0.27", "12.2"), T4, YES, "exists for CUDA 12.2"),
    Case("CudaBuildExists", tensorrt("11.4.0.106", "12.9"), T4, YES, "exists as wheels (amd64), for any 12.x"),
    Case("CudaBuildExists", tensorrt("10.9.0.34", "12"), T4, YES, "exists for CUDA 12"),
    Case("CudaBuildExists", tensorrt("10.9.0.34", "12.9"), T4, UNKNOWN, "of 12.9 no source speaks"),
    Case("CudaBuildExists", tensorrt("10.9.0.34", "13.0"), T4, NO, "not for CUDA 13.0", "CUDA 11 or 12"),
    Case("CudaBuildExists", tensorrt("10.14.1.48", "11.8"), T4, NO, "not for CUDA 11.8", "CUDA 12 or 13"),
    Case("CudaBuildExists", tensorrt("10.9.0.34", None), T4, UNKNOWN, "names no CUDA version"),
    Case("CudaBuildExists", tensorrt("12.0.0.1"), T4, UNKNOWN, "not in the matrix"),
    Case("CudaBuildExists", onnxruntime(), Hardware(), YES, "does not apply"),
)

DEVICE_CASES = (
    Case("DriverFloor", tensorrt("11.4.0.106", "13.4"), with_driver("580.159.04"), YES, "reaches 580.65.06"),
    Case(
        "DriverFloor",
        tensorrt("11.4.0.106", "13.4"),
        with_driver("535.54.03"),
        NO,
        "driver 535.54.03 is older than 580.65.06, which CUDA 13 needs",
        "a driver >= 580.65.06, or TensorRT 11.4 built for CUDA 12",
    ),
    # The release's own floor is stricter than CUDA's 525.60.13 from 10.16 on.
    Case(
        "DriverFloor",
        tensorrt("10.16.1.11"),
        with_driver("530.30.02"),
        NO,
        "older than 535, which TensorRT 10.16 for CUDA 12 needs",
        "or TensorRT 10.15 built for CUDA 12",
    ),
    Case("DriverFloor", tensorrt("10.15.1.29"), with_driver("530.30.02"), YES, "reaches 525.60.13"),
    Case("DriverFloor", tensorrt("10.9.0.34", "12.8"), with_driver("550.120"), YES, "driver 550.120 reaches"),
    Case("DriverFloor", tensorrt("11.4.0.106", "13.4"), with_driver("550.120."), NO, "driver 550.120. is older"),
    Case("DriverFloor", tensorrt("10.9.0.34", "12.8"), with_driver(None), UNKNOWN, "not known (no label)"),
    Case("DriverFloor", tensorrt("10.9.0.34", "12.8"), ORIN, UNKNOWN, "not known (unknown.unknown.unknown)"),
    Case("DriverFloor", tensorrt("10.9.0.34", None), with_driver("550.120"), UNKNOWN, "names no CUDA version"),
    Case(
        "DriverFloor",
        tensorrt("8.5.3.1", "10.2"),
        with_driver("550.120"),
        UNKNOWN,
        "no driver floor is known for CUDA 10.2",
    ),
    # No build at all fits a driver this old, so none is offered.
    Case(
        "DriverFloor",
        tensorrt("10.9.0.34", "11.8"),
        with_driver("418.40"),
        NO,
        "older than 450.80.02",
        "a driver >= 450.80.02",
    ),
    Case("DriverFloor", rtx(), with_driver("575.51.03"), NO, "which CUDA 13 needs", "a driver >= 580.65.06"),
    Case("DriverFloor", rtx(), Hardware(), YES, "builds without a driver"),
    Case("DriverFloor", onnxruntime(), Hardware(), YES, "does not apply"),
    Case("ComputeCapabilitySupported", tensorrt("10.9.0.34"), T4, YES, "supports compute capability 7.5"),
    Case("ComputeCapabilitySupported", tensorrt("10.4.0.26"), V100, YES, "supports compute capability 7.0"),
    Case(
        "ComputeCapabilitySupported",
        tensorrt("10.5.0.18", "12.6"),
        V100,
        NO,
        "supports compute capability 7.5 and newer; this GPU has 7.0",
        "a GPU of compute capability >= 7.5, or TensorRT 10.4 built for CUDA 12",
    ),
    Case(
        "ComputeCapabilitySupported",
        tensorrt("11.4.0.106", "13.4"),
        V100,
        NO,
        "CUDA 13 has no code for compute capability 7.0",
        "TensorRT 10.4 built for CUDA 12",
    ),
    Case("ComputeCapabilitySupported", tensorrt("10.8.0.43"), capability("12.0"), YES, "compute capability 12.0"),
    Case("ComputeCapabilitySupported", tensorrt("10.8.0.43"), capability("10.0"), YES, "early access"),
    Case(
        "ComputeCapabilitySupported",
        tensorrt("10.7.0.23"),
        capability("12.0"),
        NO,
        "came with TensorRT 10.8",
        "TensorRT >= 10.8",
    ),
    Case(
        "ComputeCapabilitySupported",
        tensorrt("11.2.1.2"),
        capability("10.7"),
        NO,
        "came with TensorRT 11.3",
        "TensorRT >= 11.3",
    ),
    Case("ComputeCapabilitySupported", tensorrt("10.9.0.34"), capability("12.1"), UNKNOWN, "no source says"),
    Case("ComputeCapabilitySupported", tensorrt("10.14.1.48"), capability("11.0"), UNKNOWN, "no source says"),
    Case("ComputeCapabilitySupported", tensorrt("11.4.1.2"), capability("11.0"), YES, "compute capability 11.0"),
    Case("ComputeCapabilitySupported", tensorrt("11.4.0.106"), capability("11.0"), UNKNOWN, "no source says"),
    Case("ComputeCapabilitySupported", tensorrt("11.5.0.1", "13.5"), T4, UNKNOWN, "is not known"),
    Case(
        "ComputeCapabilitySupported",
        tensorrt("10.9.0.34"),
        Hardware(product="X"),
        UNKNOWN,
        "capability of X is not known",
    ),
    Case("ComputeCapabilitySupported", tensorrt("12.0.0.1"), T4, UNKNOWN, "not in the matrix"),
    Case("ComputeCapabilitySupported", rtx(), T4, YES, "does not apply"),
    Case("ComputeCapabilitySupported", onnxruntime(), Hardware(), YES, "does not apply"),
    Case("PlatformSupported", tensorrt("10.9.0.34"), T4, YES, "exists for x86_64"),
    Case("PlatformSupported", tensorrt("9.3.0.1", "12.2"), GH200, NO, "not for sbsa (arm64)", "an amd64 node"),
    Case("PlatformSupported", tensorrt("10.9.0.34", "12.8"), GH200, YES, "arm64"),
    Case("PlatformSupported", tensorrt("11.4.0.106", "13.4"), GH200, YES, "arm64"),
    Case(
        "PlatformSupported",
        tensorrt("11.4.0.106", "12"),
        GH200,
        NO,
        "for CUDA 12 does not exist for arm64; there it is built for CUDA 13",
        "TensorRT 11.4 built for CUDA 13, or an amd64 node",
    ),
    Case("PlatformSupported", tensorrt("10.3.0.26", "12.5"), GH200, UNKNOWN, "is not known"),
    Case("PlatformSupported", tensorrt("10.9.0.34"), Hardware(os="windows"), UNKNOWN, "Linux only"),
    Case("PlatformSupported", tensorrt("10.9.0.34"), Hardware(arch="riscv64"), UNKNOWN, "riscv64"),
    Case("PlatformSupported", tensorrt("10.3.0.26", "12.6"), ORIN, YES, "supports Jetson"),
    Case("PlatformSupported", tensorrt("11.3.0.99", "13.4"), ORIN, NO, "does not support Jetson", "JetPack"),
    Case("PlatformSupported", tensorrt("11.4.0.106", "13.4"), ORIN, NO, "11.4.1 does", "TensorRT 11.4.1"),
    Case("PlatformSupported", tensorrt("11.4.1.2", "13.4"), ORIN, YES, "AGX Orin"),
    Case("PlatformSupported", tensorrt("11.0.0.114", "13.2"), ORIN, UNKNOWN, "not established"),
    Case("PlatformSupported", onnxruntime(), Hardware(arch="arm64"), YES, "does not apply"),
    Case("RtxTargetSupported", rtx(), capability("12.0"), YES, "compute capability 12.0"),
    Case("RtxTargetSupported", rtx(), capability("12.5"), YES, "compute capability 12.5"),
    Case("RtxTargetSupported", rtx(), H100, NO, "this GPU has 9.0", "backend: tensorrt"),
    Case("RtxTargetSupported", rtx(), capability("10.0"), NO, "this GPU has 10.0", "backend: tensorrt"),
    Case("RtxTargetSupported", rtx(), Hardware(product="X"), UNKNOWN, "is not known"),
    Case("RtxTargetSupported", rtx(), Hardware(), YES, "no GPU is named"),
    Case("RtxTargetSupported", tensorrt("10.9.0.34"), H100, YES, "does not apply"),
)

PRECISION_CASES = (
    Case("PrecisionSupported", tensorrt("10.9.0.34"), T4, YES, "has fp16", precision=Precision.FP16),
    Case(
        "PrecisionSupported", tensorrt("10.9.0.34"), T4, NO, "has fp32, fp16, int8, not bf16", ">= 8.0", Precision.BF16
    ),
    *(
        Case("PrecisionSupported", library, capability(older), NO, "not fp8", ">= 8.9", Precision.FP8)
        for library in (tensorrt("10.9.0.34"), rtx())
        for older in ("7.5", "8.0", "8.6", "8.7")
    ),
    *(
        Case("PrecisionSupported", library, capability(newer), YES, f"{newer} has fp8", precision=Precision.FP8)
        for library in (tensorrt("10.9.0.34"), rtx())
        for newer in ("8.9", "12.0")
    ),
    Case(
        "PrecisionSupported", tensorrt("11.3.0.99"), capability("10.7"), UNKNOWN, "no source", precision=Precision.FP8
    ),
    Case("PrecisionSupported", tensorrt("10.9.0.34"), capability("9.9"), UNKNOWN, "no source", precision=Precision.FP8),
    Case("PrecisionSupported", tensorrt("10.9.0.34"), Hardware(), UNKNOWN, "not known", precision=Precision.FP16),
    Case("PrecisionSupported", tensorrt("10.9.0.34"), Hardware(), YES, "every GPU has fp32"),
    Case("PrecisionSupported", onnxruntime(), Hardware(), YES, "between casts", precision=Precision.FP16),
    Case("PrecisionSupported", onnxruntime(), Hardware(), NO, "does not run bf16", "fp32", Precision.BF16),
    Case("PrecisionSupported", onnxruntime(), Hardware(), NO, "does not run fp8", "fp32", Precision.FP8),
    Case("PrecisionSupported", onnxruntime("openvino"), Hardware(), UNKNOWN, "openvino", precision=Precision.FP16),
)

HARDWARE, VERSION = "HardwareCompatibilityAllowed", "VersionCompatibleAllowed"
AMPERE, SAME = "ampere-plus", "same-compute-capability"
OPTION_CASES = (
    Case(HARDWARE, tensorrt("10.9.0.34"), T4, YES, "one GPU model"),
    Case(HARDWARE, tensorrt("8.6.1.6"), H100, YES, "possible", hardware_compatibility=AMPERE),
    Case(HARDWARE, tensorrt("8.5.3.1"), H100, NO, "came with TensorRT 8.6", ">= 8.6", hardware_compatibility=AMPERE),
    Case(
        HARDWARE,
        tensorrt("10.9.0.34"),
        T4,
        NO,
        "needs compute capability >= 8.0",
        "none",
        hardware_compatibility=AMPERE,
    ),
    Case(HARDWARE, tensorrt("10.7.0.23"), ORIN, NO, "Jetson", "none", hardware_compatibility=AMPERE),
    Case(HARDWARE, tensorrt("10.9.0.34"), T4, YES, "7.5", hardware_compatibility=SAME),
    Case(HARDWARE, tensorrt("10.8.0.43"), T4, NO, "came with TensorRT 10.9", ">= 10.9", hardware_compatibility=SAME),
    Case(HARDWARE, tensorrt("10.9.0.34"), V100, NO, ">= 7.5", "none", hardware_compatibility=SAME),
    Case(HARDWARE, tensorrt("10.9.0.34"), Hardware(product="X"), UNKNOWN, "not known", hardware_compatibility=AMPERE),
    Case(
        HARDWARE,
        tensorrt("10.9.0.34"),
        H100,
        NO,
        "'everything' does not exist",
        "ampere-plus",
        hardware_compatibility="everything",
    ),
    Case(HARDWARE, onnxruntime(), Hardware(), YES, "ignores", hardware_compatibility=AMPERE),
    Case(VERSION, tensorrt("10.9.0.34"), T4, YES, "one exact version"),
    Case(VERSION, tensorrt("10.9.0.34"), T4, YES, "builds version-compatible", version_compatible=True),
    Case(
        VERSION,
        tensorrt("8.5.3.1"),
        T4,
        NO,
        "came with TensorRT 8.6",
        "versionCompatible: false",
        version_compatible=True,
    ),
    Case(VERSION, tensorrt("nightly"), T4, UNKNOWN, "is no version", version_compatible=True),
    Case(VERSION, rtx(), T4, NO, "lean runtime", "versionCompatible: false", version_compatible=True),
    Case(VERSION, onnxruntime(), Hardware(), YES, "does not apply", version_compatible=True),
)

CASES = (*TOOLCHAIN_CASES, *DEVICE_CASES, *PRECISION_CASES, *OPTION_CASES)


def _ask(case: Case) -> RuleAnswer:
    query = MatrixQuery(
        toolchain=case.toolchain,
        hardware=case.hardware,
        precision=case.precision,
        hardware_compatibility=case.hardware_compatibility,
        version_compatible=case.version_compatible,
    )
    return next(answer for answer in check_all(MATRIX, query) if answer.rule == case.rule)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}-{case.want_verdict}-{case.want_found}")
def test_a_rule_answers_with_its_verdict_what_it_found_and_what_it_wants(case: Case) -> None:
    answer = _ask(case)
    assert (answer.verdict, case.want_found in answer.found) == (case.want_verdict, True), answer
    assert case.want_wanted in answer.wanted, answer
    assert bool(answer.wanted) is (answer.verdict is NO), answer


def test_every_rule_is_seen_to_say_yes_and_no_and_unknown() -> None:
    seen = {(case.rule, case.want_verdict) for case in CASES}
    names = {case.rule for case in CASES}
    never = {("TensorRTKnown", NO)}
    assert len(names) == len(RULES)
    assert {(name, verdict) for name in names for verdict in Verdict} - seen == never


def test_a_fitting_combination_is_refused_by_no_rule() -> None:
    query = MatrixQuery(toolchain=tensorrt("10.13.3.9"), hardware=with_driver("575.51.03"), precision=Precision.FP8)
    answers = check_all(MATRIX, query)
    assert len(answers) == len(RULES)
    assert refusals(answers) == ()
    assert {answer.verdict for answer in answers} == {YES}


def test_a_yes_and_a_no_about_a_release_name_their_sources() -> None:
    sourced = {"TensorRTKnown", "CudaBuildExists", "ComputeCapabilitySupported", "DriverFloor"}
    query = MatrixQuery(toolchain=tensorrt("10.5.0.18", "12.6"), hardware=with_driver("470.82.01", V100))
    answers = [answer for answer in check_all(MATRIX, query) if answer.rule in sourced]
    assert all(answer.sources for answer in answers)
    refused = [answer.rule for answer in refusals(answers)]
    assert refused == ["DriverFloor", "ComputeCapabilitySupported"]


def test_an_alternative_satisfies_driver_gpu_and_platform_together() -> None:
    # Volta needs <= 10.4, this driver needs CUDA 11: only a CUDA 11 build of 10.4 is both.
    query = MatrixQuery(toolchain=tensorrt("11.4.0.106", "13.4"), hardware=with_driver("470.82.01", V100))
    wanted = [answer.wanted for answer in refusals(check_all(MATRIX, query))]
    assert wanted
    assert all("TensorRT 10.4 built for CUDA 11" in text for text in wanted)
