"""The version matrix as values: rows about TensorRT, CUDA, drivers and GPUs, with their sources.

`load.load_matrix` reads them from the files in `data/`. None means "not established" and never "unsupported"; the rules
answer UNKNOWN for it.
"""

from collections.abc import Mapping
from typing import Literal

from enginesmith_contract.record import Record

__all__ = [
    "CapabilityNote",
    "CapabilityPrecisions",
    "CompatibilityLevel",
    "CudaDrivers",
    "CudaFloor",
    "CudaRemoval",
    "CudaToolkit",
    "GpuProduct",
    "Jetpack",
    "JetsonSupport",
    "MajorStep",
    "Matrix",
    "NgcTag",
    "Portability",
    "ProviderPrecision",
    "ProviderPrecisions",
    "Release",
    "RtxTargets",
    "Source",
    "VersionCompatibility",
]


class Source(Record):
    """Source of a row; `url` is None if it was observed in a file or a run and not on a page."""

    id: str
    title: str
    url: str | None = None


class CudaFloor(Record):
    """The oldest Linux driver on which a program built with any minor of a CUDA major starts."""

    major: str
    driver: str
    sources: tuple[str, ...]


class CudaToolkit(Record):
    """The driver that was released with a toolkit. An older one of the same major runs it without some features."""

    cuda: str
    driver: str | None
    sources: tuple[str, ...]


class CudaRemoval(Record):
    """A CUDA major has no code for compute capabilities lower than `below`."""

    major: str
    below: str
    sources: tuple[str, ...]


class CudaDrivers(Record):
    """Requirements of CUDA for the driver and the device."""

    floors: tuple[CudaFloor, ...]
    toolkits: tuple[CudaToolkit, ...]
    removed: tuple[CudaRemoval, ...]


class CapabilityNote(Record):
    """Statement of a release about a compute capability that older lines do not have.

    Attributes:
        status: "added" and "early-access" mean that no older release supports it. "named" says nothing about older
            releases. "hinted" (found only in the open-source plugins) proves nothing.
        since: First full version of the line that the statement applies to; None if it applies to all.
    """

    capability: str
    status: Literal["added", "early-access", "named", "hinted"]
    since: str | None = None


class JetsonSupport(Record):
    """Jetson support of a release; `supported` is None if sources disagree. For `since` see CapabilityNote."""

    supported: bool | None
    since: str | None = None
    boards: tuple[str, ...] = ()
    note: str = ""


class Release(Record):
    """One line of TensorRT releases.

    Attributes:
        line: First numbers of the full versions that the row describes ("10.13.3").
        general_availability: Full version of the general availability release; None if none is published.
        cuda_builds: CUDA versions with builds for Linux on amd64.
        cuda_builds_arm64: CUDA versions with builds for SBSA servers.
        cuda_supported: CUDA versions that the release's support matrix lists in addition to the builds.
        wheels: Architectures ("amd64", "arm64") of the Python wheels, by CUDA major.
        minimum_drivers: Driver floor that the release itself states, by CUDA major. It can be higher than CUDA's.
        platforms: Platforms of the release: "x86_64", "sbsa", "jetson", "ppc64le".
        python: Lowest and highest Python minor version with a wheel.
    """

    line: str
    general_availability: str | None
    cuda_majors: tuple[str, ...]
    cuda_builds: tuple[str, ...]
    cuda_builds_arm64: tuple[str, ...] = ()
    cuda_supported: tuple[str, ...] = ()
    wheels: Mapping[str, tuple[str, ...]] = {}
    minimum_drivers: Mapping[str, str] = {}
    minimum_capability: str | None = None
    minimum_capability_confidence: Literal["official", "derived"] | None = None
    maximum_capability_seen: str | None = None
    capabilities: tuple[CapabilityNote, ...] = ()
    platforms: tuple[str, ...] = ()
    jetson: JetsonSupport | None = None
    python: tuple[str, ...] = ()
    note: str = ""
    sources: tuple[str, ...]


class GpuProduct(Record):
    """One GPU model as GPU Feature Discovery spells it.

    Attributes:
        nominal_memory_gb: Memory size in the data sheet. The label of a node takes precedence.
        memory_mib: Value of the label on a real node.
        integrated: Whether the GPU is part of a Jetson module.
        unified_memory: Whether the GPU uses the memory of the host and has none of its own.
    """

    product: str
    capability: str
    nominal_memory_gb: int | None = None
    memory_mib: int | None = None
    integrated: bool = False
    unified_memory: bool = False
    confidence: Literal["official", "derived"] = "official"
    note: str = ""
    sources: tuple[str, ...]


class CapabilityPrecisions(Record):
    """Precisions of one compute capability, in lower case ("fp16"); None if they are not established."""

    capability: str
    precisions: tuple[str, ...] | None
    sources: tuple[str, ...]


class ProviderPrecision(Record):
    """How one ONNX Runtime provider runs models of one precision."""

    precision: str
    runs: bool
    note: str = ""


class ProviderPrecisions(Record):
    """Precisions that one ONNX Runtime execution provider runs."""

    provider: str
    precisions: tuple[ProviderPrecision, ...]
    sources: tuple[str, ...]


class CompatibilityLevel(Record):
    """One level of `hardwareCompatibility`: first TensorRT version, lowest compute capability, support on Jetson."""

    name: str
    since: str | None
    minimum_capability: str | None
    jetson: bool
    sources: tuple[str, ...]


class MajorStep(Record):
    """Major `loaded` of TensorRT loads a version-compatible engine of major `built`."""

    built: str
    loaded: str


class VersionCompatibility(Record):
    """Newer TensorRT majors that load a version-compatible engine of an older one. Within a major it always loads."""

    since: str
    across_majors: tuple[MajorStep, ...]
    sources: tuple[str, ...]


class Portability(Record):
    """Rules for engines on devices and in versions other than those of their build."""

    levels: tuple[CompatibilityLevel, ...]
    version_compatible: VersionCompatibility


class RtxTargets(Record):
    """TensorRT for RTX: where its engines run.

    Attributes:
        targets: Compute capabilities that a build can name.
        defaults: Compute capabilities of a build that names none.
        newer_than: Engines also run on every compute capability above this one.
        refused: Compute capabilities that the library refused in a test.
    """

    version: str
    targets: tuple[str, ...]
    defaults: tuple[str, ...]
    newer_than: str
    refused: tuple[str, ...]
    sources: tuple[str, ...]


class Jetpack(Record):
    """TensorRT and CUDA of one JetPack; None if not established."""

    jetpack: str
    tensorrt: str | None
    cuda: str | None
    boards: tuple[str, ...]
    sources: tuple[str, ...]


class NgcTag(Record):
    """TensorRT in one of NVIDIA's monthly images; None if not established."""

    tag: str
    tensorrt: str | None
    cuda: str | None
    confidence: Literal["official", "third-party", "unknown"]
    sources: tuple[str, ...] = ()


class Matrix(Record):
    """Contents of the data files. Releases are ordered from the oldest to the newest."""

    sources: tuple[Source, ...]
    releases: tuple[Release, ...]
    cuda_drivers: CudaDrivers
    gpus: tuple[GpuProduct, ...]
    jetson_capabilities: tuple[str, ...]
    capability_precisions: tuple[CapabilityPrecisions, ...]
    provider_precisions: tuple[ProviderPrecisions, ...]
    portability: Portability
    tensorrt_rtx: RtxTargets
    jetpacks: tuple[Jetpack, ...]
    ngc_tags: tuple[NgcTag, ...]
