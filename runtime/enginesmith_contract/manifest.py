"""The manifest: what an engine is, what it was made of, where it may run. Its pointer in the store is this document.

TensorRT has no preflight check and loads a plan with a flipped byte without a word, so the runtime believes nothing
but a manifest that fits what it sees and a digest that fits the file.
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
    """Durations in seconds; latency is of one inference at each profile's opt on the building device.

    Attributes:
        builder_seconds: of `build_seconds`, the library's builder alone, which is what a timing cache shortens; None
            where the backend does not tell.
        timing_cache: what the build found in the timing cache and added to it; None where there is none.
    """

    build_seconds: float
    builder_seconds: float | None = None
    timing_cache: TimingCacheUse | None = None
    verify_seconds: float | None = None
    latency_seconds: Mapping[str, float] = {}


class Manifest(Record):
    """One stored engine.

    Attributes:
        engine_key: of `key_inputs`.
        engine_digest: `content_digest(files)`; two builds of one key differ here.
        files: the engine's files, the one to open first.
        hardware: the device it was built on, as the device itself says; `product` None for a CPU.
        runs_on: compute capabilities that it was compiled for where that is more than one device (TensorRT for RTX).
        device_memory_bytes: what one execution context takes, where the backend tells.
        precision: the policy that the model was prepared with; a default limit follows from it.
        own_precisions: of FP16, BF16, INT8 and FP8 those that the source itself computes in; as `precision`.
        rounding: by output, its difference when the last bits of inputs and weights change; None: not measured.
        references: inputs and outputs to verify against where `verification` is `notRun`.
        inspector: the backend's own description of layers and precisions, in counts.
        structure_digest: of the prepared model without its weights' values.
        refitted_from: engine key of the engine whose weights were replaced; None: it was built.
        notes: what the build did otherwise than one would expect, one sentence each.
        provenance: who built it, where and from what; None: an earlier release did.
        signature: of all the rest; None: it is not signed.
        created_at: RFC 3339, UTC.
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
        """Return what default limits follow from."""
        return Arithmetic(precision=self.precision, own=self.own_precisions, rounding=self.rounding or {})
