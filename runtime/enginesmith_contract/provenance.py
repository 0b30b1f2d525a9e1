"""Where an engine comes from, with the field names of SLSA provenance v1 (https://slsa.dev/spec/v1.0/provenance)."""

from collections.abc import Mapping
from typing import Final

from enginesmith_contract.record import Record

__all__ = [
    "BUILD_TYPE",
    "BuildDefinition",
    "BuildMetadata",
    "BuildOrigin",
    "Builder",
    "Dependency",
    "Provenance",
    "RunDetails",
]

BUILD_TYPE: Final = "https://enginesmith.io/engine-build/v1"


class BuildOrigin(Record):
    """Origin of a build, as the operator passes it to the builder.

    Attributes:
        image: Image of the builder, pinned by digest.
        operator_version: Release of the operator.
        cluster: Name of the cluster, set by the administrator.
        namespace: Namespace of the Job.
        job: Name of the Job.
        engine: Name of the InferenceEngine.
    """

    image: str | None = None
    operator_version: str | None = None
    cluster: str | None = None
    namespace: str | None = None
    job: str | None = None
    engine: str | None = None


class Dependency(Record):
    """One input of the engine's build.

    Attributes:
        name: Kind of input: "model", "preparation", "toolchain", "image" or "plugin".
        uri: URI of the input, if it has one.
        digest: Digests of the input, by algorithm.
        annotations: Other data that identifies the input.
    """

    name: str
    uri: str | None = None
    digest: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


class BuildDefinition(Record):
    """Inputs and parameters of a build.

    Attributes:
        build_type: URI that defines the meaning of the parameters: `BUILD_TYPE`.
        external_parameters: Parameters that the user chose: the InferenceEngine, and the SHA-256 of the request.
        internal_parameters: Parameters that the platform chose: cluster, namespace, Job, GPU of the node.
        resolved_dependencies: Inputs of the engine's build.
    """

    build_type: str = BUILD_TYPE
    external_parameters: Mapping[str, str]
    internal_parameters: Mapping[str, str]
    resolved_dependencies: tuple[Dependency, ...]


class Builder(Record):
    """Program that ran the build.

    Attributes:
        id: Image of the builder, or the command on a machine without a cluster.
        version: Release of each component, by name.
    """

    id: str
    version: Mapping[str, str]


class BuildMetadata(Record):
    """Job and times (RFC 3339, UTC) of the run."""

    invocation_id: str | None = None
    started_on: str
    finished_on: str


class RunDetails(Record):
    """One run of a builder."""

    builder: Builder
    metadata: BuildMetadata


class Provenance(Record):
    """The predicate of SLSA provenance v1."""

    build_definition: BuildDefinition
    run_details: RunDetails
