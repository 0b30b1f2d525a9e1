"""The manifest describes an engine, its inputs and where it may run. It is the engine's pointer in the store.

TensorRT has no preflight check, and it loads a plan with a flipped byte without an error. The runtime therefore loads
an engine only if the manifest fits the device and the library, and the digest fits the file.
"""

from collections.abc import Mapping

from pydantic import JsonValue

from enginesmith_contract.backends import Hardware, Precision, PrecisionPolicy, Toolchain
from enginesmith_contract.keys import EngineKeyInputs
from enginesmith_contract.limits import Arithmetic
from enginesmith_contract.preparation import Batching, ReferenceSet
from enginesmith_contract.profiles import Profile
from enginesmith_contract.provenance import Provenance
from enginesmith_contract.record import Record
from enginesmith_contract.signatures import EngineSignature
from enginesmith_contract.store_layout import StoredFile
from enginesmith_contract.tensors import TensorSpec
from enginesmith_contract.timing_cache import TimingCacheUse
from enginesmith_contract.verification import Verification

__all__ = ["Manifest", "Timings"]


class Timings(Record):
    """Durations in seconds. Latency is that of one inference at each profile's opt on the device of the build.

    Attributes:
        builder_seconds: Part of `build_seconds` that the library's builder takes, which a timing cache shortens; None
            if the backend does not report it.
        timing_cache: Entries that the build found in the timing cache and added to it; None if there is no timing
            cache.
    """

    build_seconds: float
    builder_seconds: float | None = None
    timing_cache: TimingCacheUse | None = None
    verify_seconds: float | None = None
    latency_seconds: Mapping[str, float] = {}


class Manifest(Record):
    """One stored engine.

    Attributes:
        engine_key: Key computed from `key_inputs`.
        engine_digest: `content_digest(files)`. Two builds of one key have different digests.
        files: Files of the engine. The first one is the one to open.
        hardware: Device of the build, as the device reports itself; `product` is None for a CPU.
        runs_on: Compute capabilities that the engine was compiled for, if there are several (TensorRT for RTX).
        device_memory_bytes: Memory of one execution context, if the backend reports it.
        precision: Precision policy of the preparation. Default limits follow from it.
        own_precisions: Precisions among FP16, BF16, INT8 and FP8 that the source model itself computes in. Default
            limits follow from them.
        rounding: Difference of each output, by name, when the last bits of inputs and weights change; None if it was
            not measured.
        references: Inputs and outputs to verify against if `verification` is `notRun`.
        inspector: Counts of layers and precisions, as the backend describes the engine.
        structure_digest: Digest of the prepared model without the values of its weights.
        refitted_from: Key of the engine whose weights were replaced; None if the engine was built.
        notes: Deviations of the build from its request that a user should know, one sentence each.
        provenance: Origin of the engine; None if an earlier release built it.
        signature: Signature of all other fields; None if the manifest is not signed.
        created_at: Time of the build (RFC 3339, UTC).
    """

    schema_version: int = 1
    engine_key: str
    key_inputs: EngineKeyInputs
    source_digest: str
    engine_digest: str
    files: tuple[StoredFile, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    batching: Batching
    toolchain: Toolchain
    hardware: Hardware
    runs_on: tuple[str, ...] = ()
    device_memory_bytes: int | None = None
    timings: Timings
    verification: Verification
    precision: PrecisionPolicy = PrecisionPolicy()
    own_precisions: tuple[Precision, ...] = ()
    rounding: Mapping[str, float] | None = None
    references: tuple[ReferenceSet, ...] = ()
    inspector: Mapping[str, JsonValue] = {}
    plugins: tuple[StoredFile, ...] = ()
    structure_digest: str | None = None
    refitted_from: str | None = None
    notes: tuple[str, ...] = ()
    provenance: Provenance | None = None
    signature: EngineSignature | None = None
    created_at: str

    @property
    def arithmetic(self) -> Arithmetic:
        """Return the arithmetic that determines default limits."""
        return Arithmetic(precision=self.precision, own=self.own_precisions, rounding=self.rounding or {})
