"""Rules about the toolchain alone: is it known, does Enginesmith build with it, does it exist for its CUDA version."""

from enginesmith_contract.backend_traits import MatrixPart, traits
from enginesmith_contract.matrix.alternatives import BUILDER_MAJORS, describe_build, nearest_build
from enginesmith_contract.matrix.model import Matrix
from enginesmith_contract.matrix.query import MatrixQuery, does_not_apply, find_release
from enginesmith_contract.matrix.versions import major_of, version_numbers
from enginesmith_contract.verdicts import RuleAnswer, Verdict

__all__ = ["builder_supported", "cuda_build_exists", "tensorrt_known"]


def tensorrt_known(matrix: Matrix, query: MatrixQuery) -> RuleAnswer:
    """Whether the matrix has a row for the version. Without a row, other rules answer UNKNOWN."""
    rule, toolchain = "TensorRTKnown", query.toolchain
    row = traits(toolchain.backend)
    if row.matrix is None:
        return does_not_apply(rule, f"{row.title} needs no TensorRT")
    if row.matrix is MatrixPart.RTX:
        return _rtx_known(matrix, toolchain.version)
    release = find_release(matrix, toolchain.version)
    if release is None:
        found = f"TensorRT {toolchain.version} is not in the matrix, which knows {_span(matrix)}"
        return RuleAnswer(rule=rule, verdict=Verdict.UNKNOWN, found=found)
    if release.general_availability is None:
        found = f"TensorRT {release.line} is known from its release notes only"
        return RuleAnswer(rule=rule, verdict=Verdict.UNKNOWN, found=found, sources=release.sources)
    found = f"TensorRT {toolchain.version} is of line {release.line}"
    return RuleAnswer(rule=rule, verdict=Verdict.YES, found=found, sources=release.sources)


def builder_supported(matrix: Matrix, query: MatrixQuery) -> RuleAnswer:
    """Whether Enginesmith builds engines with this version. Older versions can only be judged."""
    rule, toolchain = "BuilderSupported", query.toolchain
    row = traits(toolchain.backend)
    name = f"{row.title} {toolchain.version}"
    if row.matrix is not MatrixPart.RELEASES:
        return RuleAnswer(rule=rule, verdict=Verdict.YES, found=f"{name} builds engines here")
    numbers = version_numbers(toolchain.version)
    taken = " and ".join(f"{major}.x" for major in BUILDER_MAJORS)
    if numbers is None or numbers[0] > int(BUILDER_MAJORS[-1]):
        found = f"{name} was never tried; the builder supports {taken}"
        return RuleAnswer(rule=rule, verdict=Verdict.UNKNOWN, found=found)
    if str(numbers[0]) in BUILDER_MAJORS:
        return RuleAnswer(rule=rule, verdict=Verdict.YES, found=f"{name} builds engines here")
    found = f"{name} can be judged, not built with: the builder supports {taken}"
    build = nearest_build(matrix, toolchain.version, query.hardware)
    wanted = f"{describe_build(build)}, the nearest that can" if build else f"TensorRT {taken}"
    return RuleAnswer(rule=rule, verdict=Verdict.NO, found=found, wanted=wanted)


def cuda_build_exists(matrix: Matrix, query: MatrixQuery) -> RuleAnswer:
    """Whether the release was published for the toolchain's CUDA version."""
    rule, toolchain = "CudaBuildExists", query.toolchain
    row = traits(toolchain.backend)
    if row.matrix is not MatrixPart.RELEASES:
        return does_not_apply(rule, f"{row.title} has one build per wheel")
    release = find_release(matrix, toolchain.version)
    if release is None or toolchain.cuda is None:
        missing = "names no CUDA version" if release else "is not in the matrix"
        found = f"TensorRT {toolchain.version} {missing}"
        return RuleAnswer(rule=rule, verdict=Verdict.UNKNOWN, found=found)
    name, major = f"TensorRT {release.line}", major_of(toolchain.cuda)
    listed = release.cuda_builds + release.cuda_builds_arm64 + release.cuda_supported
    minors = [cuda for cuda in listed if major_of(cuda) == major]
    if toolchain.cuda in minors or (toolchain.cuda == major and major in release.cuda_majors):
        found = f"{name} exists for CUDA {toolchain.cuda}"
        return RuleAnswer(rule=rule, verdict=Verdict.YES, found=found, sources=release.sources)
    if major is not None and major in release.wheels and not minors:
        found = f"{name} for CUDA {major} exists as wheels ({', '.join(release.wheels[major])}), for any {major}.x"
        return RuleAnswer(rule=rule, verdict=Verdict.YES, found=found, sources=release.sources)
    if major in release.cuda_majors:
        seen = ", ".join(sorted(set(minors), key=lambda cuda: version_numbers(cuda) or ())) or "wheels"
        found = f"{name} exists for CUDA {seen}; of {toolchain.cuda} no source speaks"
        return RuleAnswer(rule=rule, verdict=Verdict.UNKNOWN, found=found, sources=release.sources)
    majors = " and ".join(release.cuda_majors)
    found = f"{name} exists for CUDA {majors}, not for CUDA {toolchain.cuda}"
    wanted = f"{name} built for CUDA {' or '.join(release.cuda_majors)}"
    return RuleAnswer(rule=rule, verdict=Verdict.NO, found=found, wanted=wanted, sources=release.sources)


def _rtx_known(matrix: Matrix, version: str) -> RuleAnswer:
    rule, known = "TensorRTKnown", matrix.tensorrt_rtx
    if version_numbers(version) == version_numbers(known.version):
        found = f"TensorRT for RTX {version} is in the matrix"
        return RuleAnswer(rule=rule, verdict=Verdict.YES, found=found, sources=known.sources)
    found = f"of TensorRT for RTX the matrix knows {known.version}, not {version}"
    return RuleAnswer(rule=rule, verdict=Verdict.UNKNOWN, found=found, sources=known.sources)


def _span(matrix: Matrix) -> str:
    return f"{matrix.releases[0].line} to {matrix.releases[-1].line}"
