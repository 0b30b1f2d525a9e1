"""Rules about the device: driver, compute capability, platform, precision, TensorRT for RTX's targets."""

from enginesmith_contract.backend_traits import MatrixPart, traits
from enginesmith_contract.backends import Precision
from enginesmith_contract.matrix.alternatives import describe_build, nearest_build
from enginesmith_contract.matrix.judges import judge_capability, judge_driver, judge_platform
from enginesmith_contract.matrix.model import Matrix
from enginesmith_contract.matrix.query import (
    CudaBuild,
    MatrixQuery,
    capability_of,
    does_not_apply,
    find_release,
)
from enginesmith_contract.matrix.versions import version_numbers
from enginesmith_contract.verdicts import RuleAnswer, Verdict

__all__ = [
    "compute_capability_supported",
    "driver_floor_reached",
    "platform_supported",
    "precision_supported",
    "rtx_target_supported",
]


def driver_floor_reached(matrix: Matrix, query: MatrixQuery) -> RuleAnswer:
    """Whether the driver is new enough for the toolchain's CUDA and for the release."""
    rule, toolchain, hardware = "DriverFloor", query.toolchain, query.hardware
    part = traits(toolchain.backend).matrix
    if part is None:
        return _bound_to_no_gpu(rule, query)
    if part is MatrixPart.RTX:
        if hardware.product is None and hardware.driver is None:
            return does_not_apply(rule, "TensorRT for RTX builds without a driver")
        return judge_driver(matrix, None, toolchain.cuda, hardware.driver)
    release = find_release(matrix, toolchain.version)
    return _with_alternative(matrix, query, judge_driver(matrix, release, toolchain.cuda, hardware.driver))


def compute_capability_supported(matrix: Matrix, query: MatrixQuery) -> RuleAnswer:
    """Whether the release and its CUDA have code for the device."""
    rule, build = "ComputeCapabilitySupported", _build(matrix, query)
    part = traits(query.toolchain.backend).matrix
    if part is None:
        return _bound_to_no_gpu(rule, query)
    if part is MatrixPart.RTX:
        return does_not_apply(rule, "RtxTargetSupported answers for TensorRT for RTX")
    if build is None:
        return _not_in_matrix(rule, query)
    return _with_alternative(matrix, query, judge_capability(matrix, build, query.hardware))


def platform_supported(matrix: Matrix, query: MatrixQuery) -> RuleAnswer:
    """Whether the release exists for the device's architecture; arm64 builds are for one CUDA major."""
    rule, build = "PlatformSupported", _build(matrix, query)
    if traits(query.toolchain.backend).matrix is not MatrixPart.RELEASES:
        return does_not_apply(rule, "the image or wheel itself is of one architecture")
    if build is None:
        return _not_in_matrix(rule, query)
    return _with_alternative(matrix, query, judge_platform(matrix, build, query.hardware))


def precision_supported(matrix: Matrix, query: MatrixQuery) -> RuleAnswer:
    """Whether the device has the arithmetic, or the execution provider runs such models."""
    rule, precision = "PrecisionSupported", query.precision
    if traits(query.toolchain.backend).execution_providers:
        return _provider_precision(matrix, query)
    capability = capability_of(matrix, query.hardware)
    if capability is None:
        if precision is Precision.FP32:
            return RuleAnswer(rule=rule, verdict=Verdict.YES, found="every GPU has fp32")
        found = f"the compute capability is not known, so neither is whether the GPU has {precision}"
        return RuleAnswer(rule=rule, verdict=Verdict.UNKNOWN, found=found)
    row = next((row for row in matrix.capability_precisions if row.capability == capability), None)
    if row is None or row.precisions is None:
        found = f"no source lists the precisions of compute capability {capability}"
        return RuleAnswer(rule=rule, verdict=Verdict.UNKNOWN, found=found, sources=row.sources if row else ())
    if precision in row.precisions:
        found = f"compute capability {capability} has {precision}"
        return RuleAnswer(rule=rule, verdict=Verdict.YES, found=found, sources=row.sources)
    has = ", ".join(name for name in row.precisions if name in set(Precision))
    found = f"compute capability {capability} has {has}, not {precision}"
    lowest = _lowest_capability(matrix, precision)
    wanted = f"one of {has}" + (f", or a GPU of compute capability >= {lowest}" if lowest else "")
    return RuleAnswer(rule=rule, verdict=Verdict.NO, found=found, wanted=wanted, sources=row.sources)


def rtx_target_supported(matrix: Matrix, query: MatrixQuery) -> RuleAnswer:
    """Whether an engine of TensorRT for RTX runs on the device."""
    rule, rtx = "RtxTargetSupported", matrix.tensorrt_rtx
    if traits(query.toolchain.backend).matrix is not MatrixPart.RTX:
        return does_not_apply(rule, "the backend is another one")
    text = capability_of(matrix, query.hardware)
    if text is None:
        if query.hardware.product is None:
            return does_not_apply(rule, f"no GPU is named; engines are built for {', '.join(rtx.defaults)}")
        found = f"the compute capability of {query.hardware.product} is not known"
        return RuleAnswer(rule=rule, verdict=Verdict.UNKNOWN, found=found, sources=rtx.sources)
    if text in rtx.targets or (version_numbers(text) or ()) > (version_numbers(rtx.newer_than) or ()):
        found = f"TensorRT for RTX runs on compute capability {text}"
        return RuleAnswer(rule=rule, verdict=Verdict.YES, found=found, sources=rtx.sources)
    targets = f"{', '.join(rtx.targets)} and newer than {rtx.newer_than}"
    found = f"TensorRT for RTX runs on compute capability {targets}; this GPU has {text}"
    wanted = "backend: tensorrt for this GPU, or a GPU of the RTX class"
    return RuleAnswer(rule=rule, verdict=Verdict.NO, found=found, wanted=wanted, sources=rtx.sources)


def _bound_to_no_gpu(rule: str, query: MatrixQuery) -> RuleAnswer:
    return does_not_apply(
        rule, f"{traits(query.toolchain.backend).title} is bound to no GPU generation of NVIDIA's here"
    )


def _build(matrix: Matrix, query: MatrixQuery) -> CudaBuild | None:
    release = find_release(matrix, query.toolchain.version)
    return CudaBuild(release, query.toolchain.version, query.toolchain.cuda or "") if release else None


def _not_in_matrix(rule: str, query: MatrixQuery) -> RuleAnswer:
    found = f"TensorRT {query.toolchain.version} is not in the matrix"
    return RuleAnswer(rule=rule, verdict=Verdict.UNKNOWN, found=found)


def _with_alternative(matrix: Matrix, query: MatrixQuery, answer: RuleAnswer) -> RuleAnswer:
    """Add to a refusal the nearest build that the device can take, unless the refusal names one already."""
    if answer.verdict is not Verdict.NO or answer.wanted.startswith("TensorRT "):
        return answer
    build = nearest_build(matrix, query.toolchain.version, query.hardware)
    if build is None:
        return answer
    return answer.model_copy(update={"wanted": f"{answer.wanted}, or {describe_build(build)}"})


def _lowest_capability(matrix: Matrix, precision: Precision) -> str | None:
    having = (row.capability for row in matrix.capability_precisions if precision in (row.precisions or ()))
    return min(having, key=lambda text: version_numbers(text) or (), default=None)


def _provider_precision(matrix: Matrix, query: MatrixQuery) -> RuleAnswer:
    rule, provider, precision = "PrecisionSupported", query.toolchain.provider or "cpu", query.precision
    row = next((row for row in matrix.provider_precisions if row.provider == provider), None)
    entry = next((entry for entry in row.precisions if entry.precision == precision), None) if row else None
    if row is None or entry is None:
        found = f"no source says how ONNX Runtime's {provider} provider runs {precision} models"
        return RuleAnswer(rule=rule, verdict=Verdict.UNKNOWN, found=found)
    note = f": {entry.note}" if entry.note else ""
    if entry.runs:
        found = f"ONNX Runtime's {provider} provider runs {precision} models{note}"
        return RuleAnswer(rule=rule, verdict=Verdict.YES, found=found, sources=row.sources)
    runs = ", ".join(other.precision for other in row.precisions if other.runs)
    found = f"ONNX Runtime's {provider} provider does not run {precision} models{note}"
    return RuleAnswer(rule=rule, verdict=Verdict.NO, found=found, wanted=f"one of {runs}", sources=row.sources)
