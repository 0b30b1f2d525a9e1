"""Names of the objects that the operator makes: at most 63 letters, the same for the same engine, never ambiguous.

Names that are joined of names end in a hash of the parts, since `a-b` + `c` and `a` + `b-c` read the same; so does the
beginning of a long one. Services are the exception that people type: theirs has a hash only where it would not fit, and
a clash is a conflict that the operator reports.
"""

from hashlib import sha256
from typing import Final

from enginesmith_contract.keys import NAME_KEY_LENGTH
from enginesmith_contract.preparation_job import PreparationJobRequest
from enginesmith_contract.verification import VerificationPolicy

__all__ = [
    "MAX_NAME",
    "engine_build_name",
    "engine_service_name",
    "headless_service_name",
    "preparation_hash",
    "preparation_job_name",
    "short_key",
    "target_name",
    "target_service_name",
]

MAX_NAME: Final = 63
"""What labels, Services and the pods of a Job bear."""
_HASH: Final = 8
_HEADLESS: Final = "headless"


def short_key(key: str) -> str:
    """Return the digits of a key that go into names and labels."""
    return key[:NAME_KEY_LENGTH]


def engine_build_name(engine: str, target: str, key: str) -> str:
    """Return the name of an EngineBuild and of its Job."""
    return _fitted(f"{engine}-{target}", short_key(key))


def preparation_hash(request: PreparationJobRequest, occasion: str = "") -> str:
    """Return what tells one preparation from another: what its result depends on.

    A GPU product that joins the pool, a changed toolchain and a new limit of the gate cause no new preparation.

    Args:
        request: of the plan.
        occasion: tells a repeated look at the same URI from the first.
    """
    wanted = request.preparation
    verification = VerificationPolicy(inputs=wanted.verification.inputs)
    preparation = wanted.model_copy(update={"tensorrt_versions": (), "verification": verification})
    whole = request.model_copy(update={"candidates": (), "preparation": preparation})
    return sha256(whole.to_json() + occasion.encode()).hexdigest()[:NAME_KEY_LENGTH]


def preparation_job_name(engine: str, request: PreparationJobRequest, occasion: str = "") -> str:
    """Return the name of a preparation's Job."""
    return _fitted(f"{engine}-prep", preparation_hash(request, occasion))


def target_name(engine: str, target: str) -> str:
    """Return the name of a target's Deployment, of its disruption budget and of its autoscaler."""
    return _fitted(f"{engine}-{target}", _hash(engine, target))


def engine_service_name(engine: str) -> str:
    """Return the name of the Service of all targets: the engine's own."""
    return engine


def headless_service_name(engine: str) -> str:
    """Return the name of the headless Service of all targets, for clients that balance by themselves."""
    return _plain(engine, _HEADLESS)


def target_service_name(engine: str, target: str) -> str:
    """Return the name of one target's Service; with a hash as well where the target is called `headless`."""
    if target == _HEADLESS:
        return _fitted(f"{engine}-{target}", _hash("target", engine, target))
    return _plain(engine, target)


def _plain(engine: str, suffix: str) -> str:
    name = f"{engine}-{suffix}"
    return name if len(name) <= MAX_NAME else _fitted(name, _hash(engine, suffix))


def _fitted(text: str, ending: str) -> str:
    room = MAX_NAME - len(ending) - 1
    if len(text) <= room:
        return f"{text}-{ending}"
    # Two long names may begin alike.
    cut = text[: room - _HASH - 1].rstrip("-")
    return f"{cut}-{_hash(text)}-{ending}"


def _hash(*parts: str) -> str:
    return sha256("/".join(parts).encode()).hexdigest()[:_HASH]
