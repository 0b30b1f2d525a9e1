"""Functions that judge one TensorRT build on one device by the rows: driver, compute capability, platform.

A judge considers one build only; `rules` adds to its answer which other build would fit. `wanted` is the device that
the build needs.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from enginesmith_contract.backends import Hardware
from enginesmith_contract.matrix.model import CapabilityNote, Matrix, Release
from enginesmith_contract.matrix.query import CudaBuild, capability_of, is_jetson
from enginesmith_contract.matrix.versions import is_at_least, major_of, version_numbers
from enginesmith_contract.verdicts import RuleAnswer, Verdict

__all__ = ["DriverFloor", "driver_floor", "judge_capability", "judge_driver", "judge_platform"]

_PLATFORMS: Final[Mapping[str, str]] = {"amd64": "x86_64", "arm64": "sbsa"}
_NOT_BEFORE: Final = ("added", "early-access")
_YES: Final = Verdict.YES
_NO: Final = Verdict.NO
_UNKNOWN: Final = Verdict.UNKNOWN


class DriverFloor(NamedTuple):
    """The oldest driver that works, and what needs it ("CUDA 13", "TensorRT 11.4 for CUDA 12")."""

    driver: str
    reader: str
    sources: tuple[str, ...]


def driver_floor(matrix: Matrix, release: Release | None, cuda: str | None) -> DriverFloor | None:
    """Return the higher driver floor of CUDA and of the release, or None if neither is known.

    Args:
        matrix: Rows of the version matrix.
        release: Row of the TensorRT release; None for another library.
        cuda: Version or major of CUDA that the library is built for.
    """
    major = major_of(cuda)
    floors = [
        DriverFloor(row.driver, f"CUDA {major}", row.sources)
        for row in matrix.cuda_drivers.floors
        if row.major == major
    ]
    if release is not None and major is not None and major in release.minimum_drivers:
        reader = f"TensorRT {release.line} for CUDA {major}"
        floors.append(DriverFloor(release.minimum_drivers[major], reader, release.sources))
    return max(floors, key=lambda floor: version_numbers(floor.driver) or (), default=None)


def judge_driver(matrix: Matrix, release: Release | None, cuda: str | None, driver: str | None) -> RuleAnswer:
    """Whether `driver` starts programs of this CUDA and satisfies the release."""
    rule = "DriverFloor"
    floor = driver_floor(matrix, release, cuda)
    if floor is None:
        found = f"no driver floor is known for CUDA {cuda}" if cuda else "the toolchain names no CUDA version"
        return _answer(rule, _UNKNOWN, found)
    needs = f"{floor.driver}, which {floor.reader} needs"
    numbers = version_numbers(driver)
    if numbers is None:
        found = f"the driver's version is not known ({driver or 'no label'}); {floor.reader} needs >= {floor.driver}"
        return _answer(rule, _UNKNOWN, found, sources=floor.sources)
    if not is_at_least(numbers, version_numbers(floor.driver) or ()):
        found = f"driver {driver} is older than {needs}"
        return _answer(rule, _NO, found, f"a driver >= {floor.driver}", floor.sources)
    return _answer(rule, _YES, f"driver {driver} reaches {needs}", sources=floor.sources)


def judge_capability(matrix: Matrix, build: CudaBuild, hardware: Hardware) -> RuleAnswer:
    """Whether the build has code for the device's compute capability."""
    rule = "ComputeCapabilitySupported"
    release, name = build.release, f"TensorRT {build.release.line}"
    text = capability_of(matrix, hardware)
    capability = version_numbers(text)
    if text is None or capability is None:
        return _answer(rule, _UNKNOWN, f"the compute capability of {hardware.product or 'the device'} is not known")
    for removal in matrix.cuda_drivers.removed:
        if removal.major == major_of(build.cuda) and capability < (version_numbers(removal.below) or ()):
            found = f"CUDA {removal.major} has no code for compute capability {text}"
            return _answer(rule, _NO, found, f"a GPU of compute capability >= {removal.below}", removal.sources)
    floor = version_numbers(release.minimum_capability)
    if floor is None:
        return _answer(rule, _UNKNOWN, f"which GPUs {name} supports is not known", sources=release.sources)
    if capability < floor:
        found = f"{name} supports compute capability {release.minimum_capability} and newer; this GPU has {text}"
        wanted = f"a GPU of compute capability >= {release.minimum_capability}"
        return _answer(rule, _NO, found, wanted, release.sources)
    return _judge_upper(matrix, build, text)


def _judge_upper(matrix: Matrix, build: CudaBuild, text: str) -> RuleAnswer:
    """Judge a capability that is not too old: seen in a support matrix, named by a release's notes, or neither."""
    rule = "ComputeCapabilitySupported"
    name = f"TensorRT {build.release.line}"
    position = matrix.releases.index(build.release)
    seen = [row for row in matrix.releases[: position + 1] if row.maximum_capability_seen]
    if seen and (version_numbers(text) or ()) <= (version_numbers(seen[-1].maximum_capability_seen) or ()):
        return _answer(rule, _YES, f"{name} supports compute capability {text}", sources=build.release.sources)
    notes = [(row, note) for row in matrix.releases for note in row.capabilities if note.capability == text]
    for row, note in notes:
        if note.status != "hinted" and _holds(matrix, row, note, build):
            early = " in early access" if note.status == "early-access" else ""
            found = f"{name} supports compute capability {text}{early}"
            return _answer(rule, _YES, found, sources=row.sources)
    for row, note in notes:
        if note.status in _NOT_BEFORE:
            found = f"compute capability {text} came with TensorRT {row.line}; this is {name}"
            return _answer(rule, _NO, found, f"TensorRT >= {row.line}", row.sources)
    found = f"no source says whether {name} supports compute capability {text}"
    return _answer(rule, _UNKNOWN, found, sources=build.release.sources)


def _holds(matrix: Matrix, row: Release, note: CapabilityNote, build: CudaBuild) -> bool:
    if matrix.releases.index(row) > matrix.releases.index(build.release):
        return False
    since = version_numbers(note.since)
    return since is None or is_at_least(version_numbers(build.version) or (), since)


def judge_platform(matrix: Matrix, build: CudaBuild, hardware: Hardware) -> RuleAnswer:
    """Whether the build exists for the device's operating system and CPU architecture."""
    rule, release = "PlatformSupported", build.release
    name = f"TensorRT {release.line}"
    if hardware.os != "linux":
        return _answer(rule, _UNKNOWN, f"the matrix knows Linux only, not {hardware.os}")
    if is_jetson(matrix, hardware):
        return _judge_jetson(build)
    platform = _PLATFORMS.get(hardware.arch)
    if platform is None or not release.platforms:
        found = f"whether {name} exists for {hardware.arch} is not known"
        return _answer(rule, _UNKNOWN, found, sources=release.sources)
    if platform not in release.platforms:
        found = f"{name} exists for {', '.join(release.platforms)}, not for {platform} ({hardware.arch})"
        return _answer(rule, _NO, found, "an amd64 node", release.sources)
    if hardware.arch == "arm64":
        return _judge_arm64(build)
    return _answer(rule, _YES, f"{name} exists for {platform}", sources=release.sources)


def _judge_arm64(build: CudaBuild) -> RuleAnswer:
    """Judge an SBSA server, whose builds exist for one CUDA major of a release where the wheels say so."""
    rule, release, major = "PlatformSupported", build.release, major_of(build.cuda)
    name = f"TensorRT {release.line} for CUDA {major}"
    seen = {major_of(cuda) for cuda in release.cuda_builds_arm64}
    seen |= {key for key, architectures in release.wheels.items() if "arm64" in architectures}
    if major in seen:
        return _answer(rule, _YES, f"{name} exists for arm64 (SBSA)", sources=release.sources)
    if major is None or not seen:
        found = f"whether {name if major else f'TensorRT {release.line}'} exists for arm64 (SBSA) is not known"
        return _answer(rule, _UNKNOWN, found, sources=release.sources)
    majors = " and ".join(sorted(key for key in seen if key))
    found = f"{name} does not exist for arm64; there it is built for CUDA {majors}"
    return _answer(
        rule, _NO, found, f"TensorRT {release.line} built for CUDA {majors}, or an amd64 node", release.sources
    )


def _judge_jetson(build: CudaBuild) -> RuleAnswer:
    rule, release, jetson = "PlatformSupported", build.release, build.release.jetson
    name = f"TensorRT {release.line}"
    if jetson is None or jetson.supported is None:
        reason = f": {jetson.note}" if jetson and jetson.note else ""
        found = f"whether {name} runs on Jetson is not established{reason}"
        return _answer(rule, _UNKNOWN, found, sources=release.sources)
    since = version_numbers(jetson.since)
    if not jetson.supported:
        return _answer(
            rule,
            _NO,
            f"{name} does not support Jetson",
            "a release that JetPack has, see `enginesmith matrix --gpu Orin --arch arm64`",
            release.sources,
        )
    version = version_numbers(build.version) or ()
    if since is not None and not is_at_least(version, since):
        found = f"TensorRT {build.version} does not support Jetson; {jetson.since} does"
        return _answer(rule, _NO, found, f"TensorRT {jetson.since}", release.sources)
    boards = f" ({', '.join(jetson.boards)})" if jetson.boards else ""
    return _answer(rule, _YES, f"{name} supports Jetson{boards}", sources=release.sources)


def _answer(rule: str, verdict: Verdict, found: str, wanted: str = "", sources: tuple[str, ...] = ()) -> RuleAnswer:
    return RuleAnswer(rule=rule, verdict=verdict, found=found, wanted=wanted, sources=sources)
