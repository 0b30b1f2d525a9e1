"""The version matrix as values: what is known of TensorRT, CUDA, drivers and GPUs, row by row, with its sources.

`load.load_matrix` fills these from the files in `data/`. A None means "not established", never "unsupported": the
rules answer UNKNOWN there.
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
    """Where a row comes from; `url` None where it was seen in a file or a run instead of on a page."""

    id: str
    title: str
    url: str | None = None


class CudaFloor(Record):
    """The oldest Linux driver on which a program built with any minor of a CUDA major starts."""

    major: str
    driver: str
    sources: tuple[str, ...]


class CudaToolkit(Record):
    """The driver that came with a toolkit; an older one of the same major runs it with features missing."""

    cuda: str
    driver: str | None
    sources: tuple[str, ...]


class CudaRemoval(Record):
    """A CUDA major has no code for compute capabilities lower than `below`."""

    major: str
    below: str
    sources: tuple[str, ...]


class CudaDrivers(Record):
    """What CUDA itself asks of the driver and the device."""

    floors: tuple[CudaFloor, ...]
    toolkits: tuple[CudaToolkit, ...]
    removed: tuple[CudaRemoval, ...]


class CapabilityNote(Record):
    """What a release says of one compute capability beyond those of older lines.

    Attributes:
        status: "added" and "early-access" say that no older release has it; "named" says nothing of older ones;
            "hinted" (open-source plugins only) is no evidence either way.
        since: first full version of the line that it holds for; None: all.
    """

    capability: str
    status: Literal["added", "early-access", "named", "hinted"]
    since: str | None = None


class JetsonSupport(Record):
    """Whether a release runs on Jetson modules; `supported` None: sources disagree. `since`: as in CapabilityNote."""

    supported: bool | None
    since: str | None = None
    boards: tuple[str, ...] = ()
    note: str = ""


class Release(Record):
    """One line of TensorRT releases.

    Attributes:
        line: leading digits of the full versions that the row speaks for ("10.13.3").
        general_availability: the full version, None where none is published.
        cuda_builds: CUDA versions that Linux amd64 builds exist for.
        cuda_builds_arm64: the same for SBSA servers.
        cuda_supported: CUDA versions that the release's support matrix lists in addition to the builds.
        wheels: architectures ("amd64", "arm64") of the Python wheels by CUDA major.
        minimum_drivers: driver floor that the release itself states, by CUDA major; may be stricter than CUDA's.
        platforms: "x86_64", "sbsa", "jetson", "ppc64le".
        python: lowest and highest minor with a wheel.
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
        nominal_memory_gb: size in the data sheet; a node's own label goes before it.
        memory_mib: a label value that was seen.
        integrated: whether it is part of a Jetson module.
        unified_memory: whether it uses the machine's memory and has none of its own.
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
    """The arithmetic of one compute capability, in lower case ("fp16"); None: not established."""

    capability: str
    precisions: tuple[str, ...] | None
    sources: tuple[str, ...]


class ProviderPrecision(Record):
    """How one ONNX Runtime provider takes models of one precision."""

    precision: str
    runs: bool
    note: str = ""


class ProviderPrecisions(Record):
    """What one ONNX Runtime execution provider runs."""

    provider: str
    precisions: tuple[ProviderPrecision, ...]
    sources: tuple[str, ...]


class CompatibilityLevel(Record):
    """One `hardwareCompatibility`: first TensorRT version, lowest compute capability, whether Jetson has it."""

    name: str
    since: str | None
    minimum_capability: str | None
    jetson: bool
    sources: tuple[str, ...]


class MajorStep(Record):
    """An engine built version-compatible by major `built` loads in major `loaded`."""

    built: str
    loaded: str


class VersionCompatibility(Record):
    """Where a version-compatible engine of an older TensorRT loads in a newer one; within a major it always does."""

    since: str
    across_majors: tuple[MajorStep, ...]
    sources: tuple[str, ...]


class Portability(Record):
    """Engines on other devices and in other versions than they were built on."""

    levels: tuple[CompatibilityLevel, ...]
    version_compatible: VersionCompatibility


class RtxTargets(Record):
    """TensorRT for RTX: where its engines run.

    Attributes:
        targets: compute capabilities that a build can name.
        defaults: what it compiles for when nothing is named.
        newer_than: engines also run on every compute capability above this one.
        refused: seen to be refused by the library.
    """

    version: str
    targets: tuple[str, ...]
    defaults: tuple[str, ...]
    newer_than: str
    refused: tuple[str, ...]
    sources: tuple[str, ...]


class Jetpack(Record):
    """TensorRT and CUDA of one JetPack; None: not established."""

    jetpack: str
    tensorrt: str | None
    cuda: str | None
    boards: tuple[str, ...]
    sources: tuple[str, ...]


class NgcTag(Record):
    """TensorRT in one monthly image of NVIDIA's; None: not established."""

    tag: str
    tensorrt: str | None
    cuda: str | None
    confidence: Literal["official", "third-party", "unknown"]
    sources: tuple[str, ...] = ()


class Matrix(Record):
    """Everything that is known, as of the data files. Releases are ordered from the oldest to the newest."""

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
