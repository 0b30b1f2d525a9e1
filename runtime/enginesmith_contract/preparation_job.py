"""The request that a preparation's pod receives, and its termination message.

The operator has no access to the store, so the pod that does tells it all that planning needs: the digests that keys
are made of, the model's facts, and which of the engines that the plan would build are there already.
"""

from collections.abc import Mapping

from enginesmith_contract.failure import Failure
from enginesmith_contract.keys import EngineCandidate
from enginesmith_contract.preparation import PreparationRequest
from enginesmith_contract.record import Record
from enginesmith_contract.tensors import ModelFacts

__all__ = ["PreparationJobRequest", "PreparationReport"]


class PreparationJobRequest(Record):
    """One model to prepare, and the engines that are wanted of it.

    Attributes:
        store: URI of the store that receives the preparation.
        candidates: engines whose keys are to be looked up once the preparation key is known.
    """

    preparation: PreparationRequest
    store: str
    candidates: tuple[EngineCandidate, ...] = ()


class PreparationReport(Record):
    """The end of one preparation, as the termination message; at most `termination.MAX_TERMINATION_BYTES` of JSON.

    What does not fit is dropped in this order: `warnings`, `facts`, `stored_engines` (a builder finds a stored engine
    by itself), the texts of `failure`.

    Attributes:
        preparation_key: None where the preparation failed.
        source_digest: of the model and its external weights; also where the failure came after the model was had.
        calibration_digest: None where no calibration was asked for.
        size_bytes: of the prepared model and its weights.
        max_batch_size: of joined requests; 0: joining was not proved.
        facts: of the prepared model; None: not known, or too long for a termination message.
        stored_engines: engine digest by engine key, of those candidates that the store has.
        omitted_engines: stored engines that the message has no room for.
        warnings: one line each, for the user.
        failure: None where the preparation succeeded.
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
