"""What a builder is told: everything, and nothing about Kubernetes."""

from pydantic import Field

from enginesmith_contract.backends import Hardware, Toolchain
from enginesmith_contract.keys import EngineKeyInputs
from enginesmith_contract.record import Record
from enginesmith_contract.verification import VerificationPolicy

__all__ = ["BuildOptions", "BuildRequest", "PluginLibrary"]


class PluginLibrary(Record):
    """A library with TensorRT plugins. It runs inside builder and server, so its digest is never optional.

    Attributes:
        uri: file, http(s), s3, gs, oss, oci or hf; a plain path in local mode.
        sha256: of its bytes.
    """

    uri: str
    sha256: str


class BuildOptions(Record):
    """Knobs of the builder.

    Attributes:
        workspace_bytes: scratch memory that a tactic may take; None: by model size, 1 to 2 GiB.
        optimization_level: 0 to 5, TensorRT's own scale.
        timeout_seconds: enforced by the builder itself; the Job's deadline is 60 s later.
        hardware_compatibility: "none", "ampere-plus" or "same-compute-capability".
        version_compatible: a plan that a newer TensorRT can load; slower.
        weight_streaming: weights may stay on the host.
        refittable: weights can be replaced without a rebuild.
        plugins: plugin libraries in loading order; their digests are those of the key.
    """

    workspace_bytes: int | None = Field(default=None, ge=1, le=1 << 40)
    optimization_level: int = Field(default=3, ge=0, le=5)
    timeout_seconds: float = Field(default=1800.0, gt=0, le=604_800)
    hardware_compatibility: str = "none"
    version_compatible: bool = False
    weight_streaming: bool = False
    refittable: bool = False
    plugins: tuple[PluginLibrary, ...] = ()


class BuildRequest(Record):
    """One engine to build from a stored preparation.

    Attributes:
        schema_version: of this record.
        engine_key: of `key_inputs`; the builder computes it again and refuses a difference.
        key_inputs: all that the engine depends on.
        store: URI of the store that holds the preparation and receives the engine.
        toolchain: that the builder must find itself to be.
        hardware: what the engine is for; the builder compares it with the device it finds.
        options: knobs of the builder.
        verification: the gate of the engine.
    """

    schema_version: int = Field(default=1, ge=1, le=1000)
    engine_key: str
    key_inputs: EngineKeyInputs
    store: str
    toolchain: Toolchain
    hardware: Hardware = Hardware()
    options: BuildOptions = BuildOptions()
    verification: VerificationPolicy = VerificationPolicy()
