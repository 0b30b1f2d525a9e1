"""Deletes unused data of a store: first pointers, then the blobs that no pointer names any more.

A store does not know InferenceEngines, so the caller passes the data in use (`Claims`). Age decides about the rest.

    kept engines     young (grace), named by a status or a running build, among the newest of their target, or not old
                     enough for their target's or the sweep's own retention
    kept the rest    preparations of kept engines; bases of refits with a kept engine; histograms that are not old;
                     every timing cache; what this release cannot read
    blobs            every digest in a kept pointer or in a claim, and every young blob

A sweep is safe without a lock while builders run. A process refreshes a pointer or a blob before it uses it
(`Store.refresh_pointer`, `Store.put_files`), and the sweep checks the age again right before each deletion. Blobs are
judged by the pointers that exist after the deletions, so a pointer that was written meanwhile keeps its blobs.
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from enginesmith_contract.manifest import Manifest
from enginesmith_contract.store_layout import (
    RefitBasePointer,
    engine_pointer,
    histograms_pointer,
    preparation_pointer,
    refit_base_pointer,
)
from enginesmith_runtime.store.interface import BlobEntry, PointerEntry, Store
from enginesmith_runtime.store.records import parse_if_readable

__all__ = ["Claims", "Judgement", "Retention", "SweepReport", "Verdict", "judge_pointers", "sweep"]

_ENGINES: Final = engine_pointer("").removesuffix(".json")
_PREPARATIONS: Final = preparation_pointer("").removesuffix(".json")
_HISTOGRAMS: Final = histograms_pointer("").removesuffix(".json")
_REFIT_BASES: Final = refit_base_pointer("").removesuffix(".json")
_DIGEST: Final = re.compile(rb"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Largest age of data without a claim, in seconds.

    Attributes:
        keep_for_seconds: Retention of engines and preparations without a claim.
        grace_seconds: Age below which nothing is deleted. It must be longer than any build.
    """

    keep_for_seconds: float = 30 * 24 * 3600.0
    grace_seconds: float = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Data of a store that the objects of a cluster need.

    Attributes:
        words: Keys and digests in use, or at least their first 20 digits.
        keep_for_seconds: By engine key, the age up to which a target's earlier engine is kept; infinity to keep it
            always.
    """

    words: frozenset[str] = frozenset()
    keep_for_seconds: Mapping[str, float] = field(default_factory=dict)

    def names(self, digits: str) -> bool:
        """Whether a key or digest is in use."""
        return digits in self.words or any(digits.startswith(word) for word in self.words)


class Verdict(StrEnum):
    """Reason why a pointer is kept or deleted."""

    YOUNG = "younger than the grace period"
    CLAIMED = "in use"
    RETAINED = "among those that its target keeps"
    NOT_OLD = "not old enough"
    NEEDED = "needed by what stays"
    UNREADABLE = "not readable by this release"
    DELETE = "deleted"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Verdict on one pointer."""

    entry: PointerEntry
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """Result of a sweep or a dry run.

    Attributes:
        judgements: Verdicts on all pointers, by name.
        deleted_blobs: Blobs without a pointer.
        kept_bytes: Size of the kept blobs in bytes.
    """

    judgements: tuple[Judgement, ...]
    deleted_blobs: tuple[BlobEntry, ...]
    kept_bytes: int

    @property
    def freed_bytes(self) -> int:
        """Size of the deleted blobs in bytes."""
        return sum(blob.size_bytes for blob in self.deleted_blobs)


def sweep(store: Store, claims: Claims, retention: Retention, *, delete: bool, now: float | None = None) -> SweepReport:
    """Judge all data of a store and, if `delete` is set, delete the unused data.

    Args:
        store: The store.
        claims: Data that the cluster needs, collected before this call.
        retention: Retention of data without a claim.
        delete: Whether to delete data. If False, the report lists what would be deleted.
        now: Time in seconds since the epoch; None for the current time.

    Raises:
        enginesmith_contract.errors.StoreError: The store cannot be read or written. Remaining data is not changed.
    """
    moment = time.time() if now is None else now
    blobs = tuple(store.blob_entries())
    documents = _documents(store)
    judgements = judge_pointers(documents, claims, retention, moment)
    doomed = {one.entry.name for one in judgements if one.verdict is Verdict.DELETE}
    if delete:
        for name in sorted(doomed):
            store.delete_pointer(name)
        # Read the pointers again, so that a pointer that was written meanwhile keeps its blobs.
        documents = _documents(store)
        doomed = set()
    named = {
        found.decode()
        for entry, document in documents.items()
        if entry.name not in doomed
        for found in _DIGEST.findall(document)
    }
    before = moment - retention.grace_seconds
    loose = [
        blob
        for blob in blobs
        if blob.written_at < before and blob.digest not in named and not claims.names(blob.digest)
    ]
    gone = [blob for blob in loose if not delete or store.delete_blob(blob.digest, written_before=before)]
    kept = sum(blob.size_bytes for blob in blobs) - sum(blob.size_bytes for blob in gone)
    return SweepReport(judgements=judgements, deleted_blobs=tuple(gone), kept_bytes=kept)


def judge_pointers(
    documents: Mapping[PointerEntry, bytes], claims: Claims, retention: Retention, now: float
) -> tuple[Judgement, ...]:
    """Return the verdict on every pointer. This function is pure."""
    judge = _Judge(claims, retention, now)
    verdicts: dict[str, Verdict] = {}
    needed: set[str] = set()
    for entry, document in documents.items():
        if not entry.name.startswith(_ENGINES):
            continue
        verdict = judge.of_engine(entry, document)
        verdicts[entry.name] = verdict
        if verdict is not Verdict.DELETE:
            needed.add(entry.name)
            needed |= {preparation_pointer(digest.decode()) for digest in _DIGEST.findall(document)}
    for entry, document in documents.items():
        if entry.name not in verdicts:
            verdicts[entry.name] = judge.of_other(entry, document, needed)
    ordered = sorted(documents, key=lambda entry: entry.name)
    return tuple(Judgement(entry=entry, verdict=verdicts[entry.name]) for entry in ordered)


@dataclass(frozen=True)
class _Judge:
    claims: Claims
    retention: Retention
    now: float

    def of_engine(self, entry: PointerEntry, document: bytes) -> Verdict:
        key = entry.name.removeprefix(_ENGINES).removesuffix(".json")
        age = self.now - entry.written_at
        if age < self.retention.grace_seconds:
            return Verdict.YOUNG
        if self.claims.names(key):
            return Verdict.CLAIMED
        if parse_if_readable(document, Manifest) is None:
            return Verdict.UNREADABLE
        if key in self.claims.keep_for_seconds:
            return Verdict.RETAINED if age < self.claims.keep_for_seconds[key] else Verdict.DELETE
        return self._by_age(age)

    def of_other(self, entry: PointerEntry, document: bytes, needed: set[str]) -> Verdict:
        age = self.now - entry.written_at
        if age < self.retention.grace_seconds:
            return Verdict.YOUNG
        if entry.name.startswith(_REFIT_BASES):
            return _of_refit_base(document, needed)
        if entry.name.startswith(_HISTOGRAMS):
            return self._by_age(age)
        if not entry.name.startswith(_PREPARATIONS) or entry.name in needed:
            return Verdict.NEEDED
        if self.claims.names(entry.name.removeprefix(_PREPARATIONS).removesuffix(".json")):
            return Verdict.CLAIMED
        return self._by_age(age)

    def _by_age(self, age: float) -> Verdict:
        return Verdict.NOT_OLD if age < self.retention.keep_for_seconds else Verdict.DELETE


def _of_refit_base(document: bytes, needed: set[str]) -> Verdict:
    base = parse_if_readable(document, RefitBasePointer)
    if base is None:
        return Verdict.UNREADABLE
    return Verdict.NEEDED if engine_pointer(base.engine_key) in needed else Verdict.DELETE


def _documents(store: Store) -> dict[PointerEntry, bytes]:
    return dict(_read(store, store.pointer_entries("")))


def _read(store: Store, entries: Iterable[PointerEntry]) -> Iterator[tuple[PointerEntry, bytes]]:
    for entry in entries:
        document = store.read_pointer(entry.name)
        if document is not None:
            yield entry, document
