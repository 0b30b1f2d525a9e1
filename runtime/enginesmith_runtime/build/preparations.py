"""The preparation that an engine is made of: read from the store, or waited for where the build began earlier."""

import time
from typing import Final

from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import BuildTimedOutError, StoreError
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.store_layout import preparation_pointer
from enginesmith_contract.waiting_builds import PREPARATION_LATE
from enginesmith_runtime.progress import Reporter
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.records import read_record

__all__ = ["await_preparation", "find_preparation", "read_preparation"]

_POLL_SECONDS: Final = 0.2
"""A look is one small read of the store; the wait lasts as long as the rest of a preparation."""


def find_preparation(store: Store, request: BuildRequest) -> Preparation | None:
    """Return the preparation that an engine is made of; None: the store lacks it."""
    return read_record(store, _pointer(request), Preparation)


def read_preparation(store: Store, request: BuildRequest) -> Preparation:
    """Return the preparation that an engine is made of.

    Raises:
        StoreError: `PreparationMissing`.
    """
    preparation = find_preparation(store, request)
    if preparation is None:
        raise StoreError(
            "the store lacks the preparation",
            where=_pointer(request),
            remedy="prepare the model first (`enginesmith build` does)",
            reason="PreparationMissing",
        )
    return preparation


def await_preparation(store: Store, request: BuildRequest, reporter: Reporter, *, seconds: float) -> Preparation:
    """Return the preparation that an engine is made of, as soon as the store has it.

    Args:
        store: that receives it.
        request: what is to be built of it.
        reporter: receives the stage `prepare`, and is asked at every look whether to continue.
        seconds: how long to wait.

    Raises:
        BuildTimedOutError: `PreparationLate`.
        StoreError: the store cannot be read.
        CancelledBuildError: the reporter said so.
    """
    deadline = time.monotonic() + seconds
    reporter.begin("prepare", "waits for the model's preparation")
    while (preparation := find_preparation(store, request)) is None:
        if time.monotonic() >= deadline:
            raise BuildTimedOutError(
                "the model's preparation has not ended yet",
                where=_pointer(request),
                why=f"the builder waited {seconds:g} s for it and gave its GPU back",
                remedy="nothing is to be done: the engine is built when the preparation has ended",
                reason=PREPARATION_LATE,
                retry=True,
            )
        reporter.advance(0.0)
        time.sleep(_POLL_SECONDS)
    reporter.end()
    return preparation


def _pointer(request: BuildRequest) -> str:
    return preparation_pointer(request.key_inputs.preparation_key)
