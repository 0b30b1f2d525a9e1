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
    """Who asked for a build, and where it runs, as the operator tells the builder.

    Attributes:
        image: of the builder, by digest.
        operator_version: release of the operator.
        cluster: name that the administrator gave it.
        namespace: of the Job.
        job: name of the Job.
        engine: name of the InferenceEngine.
    """

    image: str | None = None
    operator_version: str | None = None
    cluster: str | None = None
    namespace: str | None = None
    job: str | None = None
    engine: str | None = None


class Dependency(Record):
    """One thing that went into the engine.

    Attributes:
        name: "model", "preparation", "toolchain", "image" or "plugin".
        uri: where it is, if it has an address.
        digest: by algorithm.
        annotations: what else identifies it.
    """

    name: str
    uri: str | None = None
    digest: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


class BuildDefinition(Record):
    """What was built.

    Attributes:
        build_type: what the parameters mean: `BUILD_TYPE`.
        external_parameters: what a user chose: the InferenceEngine, and the SHA-256 of the request.
        internal_parameters: what the platform chose: cluster, namespace, Job, GPU of the node.
        resolved_dependencies: what went into the engine.
    """

    build_type: str = BUILD_TYPE
    external_parameters: Mapping[str, str]
    internal_parameters: Mapping[str, str]
    resolved_dependencies: tuple[Dependency, ...]


class Builder(Record):
    """Who built.

    Attributes:
        id: image of the builder, or the command on a machine without a cluster.
        version: release of each part by its name.
    """

    id: str
    version: Mapping[str, str]


class BuildMetadata(Record):
    """Which run it was: its Job, and when (RFC 3339, UTC)."""

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
