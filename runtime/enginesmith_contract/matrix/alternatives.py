"""The nearest TensorRT build that a device can take, for the `wanted` of a refusal."""

from collections.abc import Iterator
from typing import Final

from enginesmith_contract.backends import Hardware
from enginesmith_contract.matrix.judges import judge_capability, judge_driver, judge_platform
from enginesmith_contract.matrix.model import Matrix, Release
from enginesmith_contract.matrix.query import CudaBuild, find_release
from enginesmith_contract.matrix.versions import major_of
from enginesmith_contract.verdicts import Verdict

__all__ = ["BUILDER_MAJORS", "describe_build", "fits_device", "list_builds", "nearest_build"]

BUILDER_MAJORS: Final = ("10", "11")
"""TensorRT majors that Enginesmith builds with. Version 8 has no strongly typed networks, and 9 had no wide release."""


def list_builds(release: Release) -> Iterator[CudaBuild]:
    """Yield every build of a release: archives by full CUDA version, then majors that exist as wheels only."""
    version = release.general_availability or release.line
    archived = {major_of(cuda) for cuda in release.cuda_builds}
    for cuda in release.cuda_builds:
        yield CudaBuild(release, version, cuda)
    for major in release.wheels:
        if major not in archived:
            yield CudaBuild(release, version, major)


def fits_device(matrix: Matrix, build: CudaBuild, hardware: Hardware) -> bool:
    """Whether no rule about the device refuses the build."""
    answers = (
        judge_driver(matrix, build.release, build.cuda, hardware.driver),
        judge_capability(matrix, build, hardware),
        judge_platform(matrix, build, hardware),
    )
    return all(answer.verdict is not Verdict.NO for answer in answers)


def nearest_build(matrix: Matrix, version: str, hardware: Hardware) -> CudaBuild | None:
    """Return the build that fits the device and lies nearest to `version`: the same release first, then newer ones.

    It considers only published releases that Enginesmith builds with. It returns None if no build fits.
    """
    asked = find_release(matrix, version)
    position = matrix.releases.index(asked) if asked else len(matrix.releases) - 1
    candidates = [
        (abs(index - position), -index, release)
        for index, release in enumerate(matrix.releases)
        if major_of(release.line) in BUILDER_MAJORS and release.general_availability is not None
    ]
    for _, _, release in sorted(candidates, key=lambda candidate: candidate[:2]):
        for build in reversed(tuple(list_builds(release))):
            if fits_device(matrix, build, hardware):
                return build
    return None


def describe_build(build: CudaBuild) -> str:
    """Return the name of a build as messages print it."""
    return f"TensorRT {build.release.line} built for CUDA {major_of(build.cuda)}"
