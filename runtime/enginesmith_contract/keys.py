"""Keys that address an engine and a preparation. They are known before the engine or the preparation exists.

A key is the SHA-256 of its inputs' canonical JSON. It contains everything that changes the result, and nothing else.
The driver is checked and not hashed, so a driver update does not cause a rebuild.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from pydantic import Field

from enginesmith_contract.backends import Backend, Precision, PrecisionPolicy
from enginesmith_contract.calibration import Calibration
from enginesmith_contract.preprocess import Preprocess
from enginesmith_contract.profiles import Profile
from enginesmith_contract.record import Record
from enginesmith_contract.verification import InputValues

__all__ = [
    "NAME_KEY_LENGTH",
    "RECIPE_VERSION",
    "EngineCandidate",
    "EngineKeyInputs",
    "HistogramKeyInputs",
    "PreparationKeyInputs",
    "RefitKeyInputs",
    "engine_key",
    "histogram_key",
    "preparation_key",
    "refit_key",
]

RECIPE_VERSION: Final = 4
"""A release that prepares the same model differently increases it, so that old preparations are not reused."""

NAME_KEY_LENGTH: Final = 20
"""Number of digits of a key in a Kubernetes name."""


class PreparationKeyInputs(Record):
    """Everything a preparation depends on.

    It includes `verification_inputs` because the stored references are computed from them.
    """

    source_digest: str
    profiles: tuple[Profile, ...] = ()
    precision: PrecisionPolicy = PrecisionPolicy()
    calibration_digest: str | None = None
    verification_inputs: Mapping[str, InputValues] = {}
    preprocess: tuple[Preprocess, ...] | None = None
    recipe_version: int = RECIPE_VERSION


class HistogramKeyInputs(Record):
    """Everything the histograms of calibration data depend on. The GPU, the backend and the method are not part of it.

    Attributes:
        calibration: Calibration as `Calibration.of_histograms` returns it.
        profiles: Complete profiles, which determine how arrays are divided into samples.
        batched: Whether each row of an array may be a sample.
    """

    source_digest: str
    calibration_digest: str
    calibration: Calibration
    profiles: tuple[Profile, ...]
    batched: bool
    preprocess: tuple[Preprocess, ...] | None = None
    recipe_version: int = RECIPE_VERSION


class EngineCandidate(Record):
    """Everything an engine depends on except the model. The plan knows it before the model is fetched.

    Attributes:
        backend: Library that builds and runs the engine.
        backend_version: Full version of the backend's library. A library with another build number does not load the
            engine.
        cuda: CUDA version that the backend's library is built for; None for ONNX Runtime.
        os: Operating system of the nodes that run the engine.
        arch: CPU architecture of the nodes that run the engine, as Kubernetes spells it.
        gpu_product: GPU product in its canonical spelling. If None, the engine needs no GPU.
        mig_profile: MIG profile of the slice that the engine is for, such as "1g.10gb"; None for a whole GPU.
        provider: ONNX Runtime execution provider; None for the other backends.
        flags: Build options that change the engine, by name ("optimizationLevel": "3").
        plugins: SHA-256 of each plugin library, in loading order.
        epoch: Value of `build.epoch`. A new value asks for a rebuild with the same inputs.
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
    """Everything an engine depends on.

    Attributes:
        preparation_key: Key of the preparation that the engine is built from.
    """

    preparation_key: str


class RefitKeyInputs(Record):
    """Everything that two engines must share for a refit: replacing the weights turns one into the other.

    Attributes:
        candidate: Everything in the engine's key except the model.
        structure_digest: Digest of the prepared model without the values of its weights.
        precision: Default precision of the policy. TF32 and FP32 have the same graph but different engines.
    """

    candidate: EngineCandidate
    structure_digest: str
    profiles: tuple[Profile, ...]
    precision: Precision


def preparation_key(inputs: PreparationKeyInputs) -> str:
    """Return the key as 64 hexadecimal digits. Calibration data counts by its digest and not by its URI."""
    calibration = inputs.precision.calibration
    if calibration is None:
        return _digest("preparation", inputs)
    precision = inputs.precision.model_copy(update={"calibration": calibration.anywhere})
    return _digest("preparation", inputs.model_copy(update={"precision": precision}))


def histogram_key(inputs: HistogramKeyInputs) -> str:
    """Return the key as 64 hexadecimal digits."""
    return _digest("histograms", inputs)


def engine_key(inputs: EngineKeyInputs) -> str:
    """Return the key as 64 hexadecimal digits."""
    return _digest("engine", inputs)


def refit_key(inputs: RefitKeyInputs) -> str:
    """Return the key as 64 hexadecimal digits."""
    return _digest("refit", inputs)


def _digest(kind: str, inputs: Record) -> str:
    return sha256(kind.encode() + b"\n" + inputs.to_json()).hexdigest()
