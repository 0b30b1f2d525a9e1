"""The request that a builder receives. It contains everything that the build needs and nothing about Kubernetes."""

from pydantic import Field

from enginesmith_contract.backends import Hardware, Toolchain
from enginesmith_contract.keys import EngineKeyInputs
from enginesmith_contract.record import Record
from enginesmith_contract.verification import VerificationPolicy

__all__ = ["BuildOptions", "BuildRequest", "PluginLibrary"]


class PluginLibrary(Record):
    """Library with TensorRT plugins. It runs inside the builder and the server, so its digest is required.

    Attributes:
        uri: URI of the shared library (file, http, https, s3, gs, oss, oci, hf or ms); a plain path in local mode.
        sha256: SHA-256 of the library file, as 64 hexadecimal digits.
    """

    uri: str
    sha256: str


class BuildOptions(Record):
    """Settings of the builder.

    Attributes:
        workspace_bytes: Scratch memory in bytes that one TensorRT tactic may use. If None, it depends on the model's
            size: 1 to 2 GiB.
        optimization_level: TensorRT's builder optimization level: 0 builds fastest, 5 gives the fastest engine.
        timeout_seconds: Seconds after which the builder stops. The Job's own deadline is 60 s later.
        hardware_compatibility: Other GPUs on which the engine may run: "none", "ampere-plus" or
            "same-compute-capability".
        version_compatible: Whether newer TensorRT versions can load the engine. Such an engine is slower.
        weight_streaming: Whether weights may stay in host memory and be streamed to the GPU.
        refittable: Whether the engine's weights can be replaced without a rebuild.
        plugins: Plugin libraries, in loading order. Their digests are part of the engine key.
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
    """Request to build one engine from a stored preparation.

    Attributes:
        schema_version: Version of this record's schema.
        engine_key: Hash of `key_inputs`. The builder computes it again and refuses a mismatch.
        key_inputs: Everything the engine depends on.
        store: URI of the store that holds the preparation and receives the engine.
        toolchain: Toolchain that the builder must match.
        hardware: Hardware that the engine is for. The builder compares it with the device it finds.
        options: Settings of the builder.
        verification: Verification that the engine must pass.
    """

    schema_version: int = Field(default=1, ge=1, le=1000)
    engine_key: str
    key_inputs: EngineKeyInputs
    store: str
    toolchain: Toolchain
    hardware: Hardware = Hardware()
    options: BuildOptions = BuildOptions()
    verification: VerificationPolicy = VerificationPolicy()
