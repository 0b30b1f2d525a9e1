"""Keys: what an engine and a preparation are addressed by, before they exist.

A key is the SHA-256 of its inputs' canonical JSON. Everything that changes the result is in it, and nothing else: the
driver is checked, not hashed, so a driver update rebuilds nothing.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from pydantic import Field

from enginesmith_contract.backends import Backend, Precision, PrecisionPolicy
from enginesmith_contract.profiles import Profile
from enginesmith_contract.record import Record
from enginesmith_contract.verification import InputValues

__all__ = [
    "NAME_KEY_LENGTH",
    "RECIPE_VERSION",
    "EngineCandidate",
    "EngineKeyInputs",
    "PreparationKeyInputs",
    "RefitKeyInputs",
    "engine_key",
    "preparation_key",
    "refit_key",
]

RECIPE_VERSION: Final = 2
"""Raised when a release prepares the same model differently, so that old preparations are not reused."""

NAME_KEY_LENGTH: Final = 20
"""Digits of a key that go into a Kubernetes name."""


class PreparationKeyInputs(Record):
    """What a preparation depends on.

    `verification_inputs` are here because the stored references are made of them.
    """

    source_digest: str
    profiles: tuple[Profile, ...] = ()
    precision: PrecisionPolicy = PrecisionPolicy()
    calibration_digest: str | None = None
    verification_inputs: Mapping[str, InputValues] = {}
    recipe_version: int = RECIPE_VERSION


class EngineCandidate(Record):
    """What an engine depends on beside the model: known from the plan, before the model is fetched.

    Attributes:
        backend: what builds and runs it.
        backend_version: in full; an engine of another build number does not load.
        cuda: CUDA build of the backend's library; None for ONNX Runtime.
        os: of the nodes that run it.
        arch: of the nodes that run it, as Kubernetes spells it.
        gpu_product: canonical; None where no GPU is asked for.
        mig_profile: where the engine is for a slice.
        provider: ONNX Runtime execution provider; None for the others.
        flags: build options that change the engine, by name ("optimizationLevel": "3").
        plugins: SHA-256 of each plugin library, in loading order.
        epoch: `build.epoch`; raised by a user who wants a fresh build of the same inputs.
    """

    backend: Backend
    backend_version: str
    cuda: str | None = None
    os: str = "linux"
    arch: str = "amd64"
    gpu_product: str | None = None
    mig_profile: str | None = None
    provider: str | None = None
    flags: Mapping[str, str] = {}
    plugins: tuple[str, ...] = ()
    epoch: int = Field(default=0, ge=0, le=(1 << 31) - 1)

    def key_inputs(self, preparation_key: str) -> "EngineKeyInputs":
        """Return all that the engine of a prepared model depends on."""
        return EngineKeyInputs(preparation_key=preparation_key, **self.model_dump())


class EngineKeyInputs(EngineCandidate):
    """What an engine depends on.

    Attributes:
        preparation_key: of the prepared model.
    """

    preparation_key: str


class RefitKeyInputs(Record):
    """What two engines have in common of which one can be made of the other by replacing weights.

    Attributes:
        candidate: everything of the engine's key but the model.
        structure_digest: of the prepared model without its weights' values.
        precision: the policy's default; TF32 and FP32 are one graph and two engines.
    """

    candidate: EngineCandidate
    structure_digest: str
    profiles: tuple[Profile, ...]
    precision: Precision


def preparation_key(inputs: PreparationKeyInputs) -> str:
    """Return the key as 64 hexadecimal digits."""
    return _digest("preparation", inputs)


def engine_key(inputs: EngineKeyInputs) -> str:
    """Return the key as 64 hexadecimal digits."""
    return _digest("engine", inputs)


def refit_key(inputs: RefitKeyInputs) -> str:
    """Return the key as 64 hexadecimal digits."""
    return _digest("refit", inputs)


def _digest(kind: str, inputs: Record) -> str:
    return sha256(kind.encode() + b"\n" + inputs.to_json()).hexdigest()
