"""The request that a preparation's pod receives, and its termination message.

The operator has no access to the store, so the pod reports everything that planning needs: the digests from which keys
are computed, the model's facts, and which of the planned engines the store already has.
"""

from collections.abc import Mapping

from enginesmith_contract.failure import Failure
from enginesmith_contract.keys import EngineCandidate
from enginesmith_contract.preparation import PreparationRequest
from enginesmith_contract.record import Record
from enginesmith_contract.tensors import ModelFacts

__all__ = ["PreparationJobRequest", "PreparationReport"]


class PreparationJobRequest(Record):
    """One model to prepare, and the engines that the plan needs.

    Attributes:
        store: URI of the store that receives the preparation.
        candidates: Engines whose keys are looked up when the preparation key is known.
    """

    preparation: PreparationRequest
    store: str
    candidates: tuple[EngineCandidate, ...] = ()


class PreparationReport(Record):
    """Result of one preparation as the termination message: at most `termination.MAX_TERMINATION_BYTES` of JSON.

    What does not fit is dropped in this order: `warnings`, `facts`, `stored_engines` (a builder finds a stored engine
    by itself), the texts of `failure`.

    Attributes:
        preparation_key: Key of the preparation; None if it failed.
        source_digest: Digest of the model and its external weights. It is also set if the preparation failed after the
            fetch.
        calibration_digest: Digest of the calibration data; None if there is no calibration.
        size_bytes: Size of the prepared model and its weights in bytes.
        max_batch_size: Largest batch of joined requests; 0 if it is not proved that requests can be joined.
        facts: Facts about the prepared model; None if they are not known or too long for a termination message.
        stored_engines: Engine digests by engine key, for the candidates that the store has.
        omitted_engines: Number of stored engines that the message has no room for.
        warnings: Warnings for the user, one line each.
        failure: Reason of the failure; None if the preparation succeeded.
    """

    preparation_key: str | None = None
    source_digest: str | None = None
    calibration_digest: str | None = None
    size_bytes: int | None = None
    max_batch_size: int = 0
    facts: ModelFacts | None = None
    stored_engines: Mapping[str, str] = {}
    omitted_engines: int = 0
    warnings: tuple[str, ...] = ()
    failure: Failure | None = None
