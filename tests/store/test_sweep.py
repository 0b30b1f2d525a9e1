"""What a sweep keeps, what it deletes, and that it never takes what somebody is about to rely on."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from enginesmith_contract.backends import Backend, Hardware, Toolchain
from enginesmith_contract.errors import StoreError
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_contract.manifest import Manifest, Timings
from enginesmith_contract.preparation import Batching
from enginesmith_contract.store_layout import (
    HistogramsPointer,
    RefitBasePointer,
    StoredFile,
    TimingCachePointer,
    blob_name,
    engine_pointer,
    histograms_pointer,
    preparation_pointer,
    refit_base_pointer,
    timing_cache_folder,
    timing_cache_pointer,
)
from enginesmith_contract.verification import Verification, VerificationStatus
from enginesmith_runtime.store.file_store import FileStore
from enginesmith_runtime.store.interface import PointerEntry, Store
from enginesmith_runtime.store.sweep import Claims, Retention, SweepReport, Verdict, judge_pointers, sweep

OpenStore = Callable[[str], Store]
DAY = 24 * 3600.0
RETENTION = Retention(keep_for_seconds=30 * DAY, grace_seconds=DAY)
NOW = 1_000 * DAY


def make_manifest(number: int = 0, files: tuple[StoredFile, ...] = ()) -> Manifest:
    inputs = EngineKeyInputs(
        preparation_key=f"{number:064x}", backend=Backend.ONNXRUNTIME, backend_version="1.32.0", epoch=number
    )
    return Manifest(
        engine_key=engine_key(inputs),
        key_inputs=inputs,
        source_digest="5" * 64,
        engine_digest="e" * 64,
        files=files,
        inputs=(),
        outputs=(),
        profiles=(),
        batching=Batching(proved=False),
        toolchain=Toolchain(name="ort", backend=Backend.ONNXRUNTIME, version="1.32.0"),
        hardware=Hardware(),
        timings=Timings(build_seconds=1.0),
        verification=Verification(status=VerificationStatus.PASSED, metric="maxRelative", limit=0.1),
        created_at="2026-01-01T00:00:00Z",
    )


def entry(name: str, age_days: float) -> PointerEntry:
    return PointerEntry(name=name, written_at=NOW - age_days * DAY)


ONE = make_manifest(1)
KEY = ONE.engine_key
NAME = engine_pointer(KEY)
HISTOGRAMS = StoredFile(path="histograms.bin", digest="7" * 64, size_bytes=1)


@pytest.mark.parametrize(
    ("age_days", "claims", "document", "want"),
    [
        (0.5, Claims(), ONE.to_json(), Verdict.YOUNG),
        (2, Claims(), ONE.to_json(), Verdict.NOT_OLD),
        (31, Claims(), ONE.to_json(), Verdict.DELETE),
        (31, Claims(words=frozenset({KEY})), ONE.to_json(), Verdict.CLAIMED),
        (31, Claims(words=frozenset({KEY[:20]})), ONE.to_json(), Verdict.CLAIMED),
        (999, Claims(keep_for_seconds={KEY: float("inf")}), ONE.to_json(), Verdict.RETAINED),
        (2, Claims(keep_for_seconds={KEY: 0.0}), ONE.to_json(), Verdict.DELETE),
        (0.5, Claims(keep_for_seconds={KEY: 0.0}), ONE.to_json(), Verdict.YOUNG),
        (2, Claims(keep_for_seconds={KEY: 3 * DAY}), ONE.to_json(), Verdict.RETAINED),
        (4, Claims(keep_for_seconds={KEY: 3 * DAY}), ONE.to_json(), Verdict.DELETE),
        (2, Claims(words=frozenset({KEY}), keep_for_seconds={KEY: 0.0}), ONE.to_json(), Verdict.CLAIMED),
        (999, Claims(), b'{"schemaVersion": 99}', Verdict.UNREADABLE),
    ],
    ids=[
        "a young one",
        "one that nobody claims and that is not old",
        "an old one",
        "an old one that serves",
        "one that a name's twenty digits claim",
        "one of the newest of its target",
        "one too many of its target, however young",
        "one too many of its target within the grace period",
        "one too many that its target still keeps for days",
        "one too many that its target no longer keeps",
        "one too many that serves",
        "one of another release",
    ],
)
def test_an_engine_is_judged(age_days: float, claims: Claims, document: bytes, want: Verdict) -> None:
    (judgement,) = judge_pointers({entry(NAME, age_days): document}, claims, RETENTION, NOW)
    assert judgement.verdict is want


def test_what_a_kept_engine_needs_stays_and_the_rest_goes_by_age() -> None:
    other = make_manifest(2)
    documents = {
        entry(NAME, 99): ONE.to_json(),
        entry(engine_pointer(other.engine_key), 99): other.to_json(),
        entry(preparation_pointer(ONE.key_inputs.preparation_key), 99): b"{}",
        entry(preparation_pointer(other.key_inputs.preparation_key), 99): b"{}",
        entry(preparation_pointer("a" * 64), 99): b"{}",
        entry(preparation_pointer("b" * 64), 2): b"{}",
        entry(histograms_pointer("3" * 64), 29): HistogramsPointer(file=HISTOGRAMS).to_json(),
        entry(histograms_pointer("4" * 64), 31): HistogramsPointer(file=HISTOGRAMS).to_json(),
        entry(refit_base_pointer("1" * 64), 99): RefitBasePointer(engine_key=KEY).to_json(),
        entry(refit_base_pointer("2" * 64), 99): RefitBasePointer(engine_key=other.engine_key).to_json(),
        entry(timing_cache_pointer(timing_cache_folder("NVIDIA-L4", "10.13"), "ab"), 99): b"{}",
    }
    claims = Claims(words=frozenset({KEY, "a" * 64}))
    verdicts = {one.entry.name: one.verdict for one in judge_pointers(documents, claims, RETENTION, NOW)}
    assert verdicts == {
        NAME: Verdict.CLAIMED,
        engine_pointer(other.engine_key): Verdict.DELETE,
        preparation_pointer(ONE.key_inputs.preparation_key): Verdict.NEEDED,
        preparation_pointer(other.key_inputs.preparation_key): Verdict.DELETE,
        preparation_pointer("a" * 64): Verdict.CLAIMED,
        preparation_pointer("b" * 64): Verdict.NOT_OLD,
        histograms_pointer("3" * 64): Verdict.NOT_OLD,
        histograms_pointer("4" * 64): Verdict.DELETE,
        refit_base_pointer("1" * 64): Verdict.NEEDED,
        refit_base_pointer("2" * 64): Verdict.DELETE,
        timing_cache_pointer(timing_cache_folder("NVIDIA-L4", "10.13"), "ab"): Verdict.NEEDED,
    }


def put(store: Store, tmp_path: Path, content: bytes) -> StoredFile:
    (tmp_path / "model.plan").write_bytes(content)
    return store.put_files(tmp_path, [Path("model.plan")])[0]


def names(report: SweepReport, verdict: Verdict) -> list[str]:
    return [one.entry.name for one in report.judgements if one.verdict is verdict]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "s3", "oci"])
def test_an_old_engine_goes_with_its_blobs_and_shared_ones_stay(open_any: OpenStore, kind: str, tmp_path: Path) -> None:
    store = open_any(kind)
    shared, own, loose = (put(store, tmp_path, content) for content in (b"shared", b"own", b"loose"))
    kept, gone = make_manifest(1, (shared,)), make_manifest(2, (shared, own))
    for manifest in (kept, gone):
        store.create_pointer(engine_pointer(manifest.engine_key), manifest.to_json())
    claims = Claims(words=frozenset({kept.engine_key}))
    later = time.time() + 60 * DAY

    planned = sweep(store, claims, RETENTION, delete=False, now=later)
    assert names(planned, Verdict.DELETE) == [engine_pointer(gone.engine_key)]
    assert store.read_pointer(engine_pointer(gone.engine_key)) is not None
    done = sweep(store, claims, RETENTION, delete=True, now=later)
    assert done == planned
    assert open_any(kind).read_pointer(engine_pointer(gone.engine_key)) is None
    assert store.get_files(kept.files, tmp_path / "out").read_bytes() == b"shared"
    if kind != "oci":  # a registry deletes blobs by its own garbage collection
        assert {blob.digest for blob in done.deleted_blobs} == {own.digest, loose.digest}
        assert done.freed_bytes == len(b"own") + len(b"loose")
        with pytest.raises(StoreError):
            store.get_files([own], tmp_path / "out")
    again = sweep(store, claims, RETENTION, delete=True, now=later)
    assert names(again, Verdict.DELETE) == []
    assert again.deleted_blobs == ()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "s3", "oci"])
def test_within_the_grace_period_nothing_is_touched(open_any: OpenStore, kind: str, tmp_path: Path) -> None:
    store = open_any(kind)
    loose = put(store, tmp_path, b"loose")
    store.create_pointer(engine_pointer(KEY), ONE.to_json())
    retention = Retention(keep_for_seconds=0.0, grace_seconds=DAY)
    report = sweep(store, Claims(keep_for_seconds={KEY: 0.0}), retention, delete=True)
    assert names(report, Verdict.YOUNG) == [engine_pointer(KEY)]
    assert report.deleted_blobs == ()
    assert store.get_files([loose], tmp_path / "out").read_bytes() == b"loose"


def aged(store: FileStore, name: str, days: float) -> None:
    path = Path(store.uri.removeprefix("file://")) / name
    moment = time.time() - days * DAY
    os.utime(path, (moment, moment))


def test_a_pointer_that_is_relied_on_is_young_again(tmp_path: Path) -> None:
    store = FileStore.open(tmp_path / "store")
    store.create_pointer(NAME, ONE.to_json())
    aged(store, NAME, 99)
    store.refresh_pointer(NAME)
    store.refresh_pointer(engine_pointer("0" * 64))
    report = sweep(store, Claims(), RETENTION, delete=True)
    assert names(report, Verdict.YOUNG) == [NAME]


def test_an_unreadable_document_keeps_the_blobs_that_it_names(tmp_path: Path) -> None:
    store = FileStore.open(tmp_path / "store")
    file = put(store, tmp_path, b"of a later release")
    store.create_pointer(NAME, json.dumps({"schemaVersion": 99, "parts": [file.digest]}).encode())
    report = sweep(store, Claims(), RETENTION, delete=True, now=time.time() + 99 * DAY)
    assert names(report, Verdict.UNREADABLE) == [NAME]
    assert report.deleted_blobs == ()


def test_a_blob_that_a_claim_names_stays_though_no_pointer_does(tmp_path: Path) -> None:
    store = FileStore.open(tmp_path / "store")
    plugin = put(store, tmp_path, b"library")
    claims = Claims(words=frozenset({plugin.digest}))
    assert sweep(store, claims, RETENTION, delete=True, now=time.time() + 99 * DAY).deleted_blobs == ()


def test_a_builder_that_stores_an_old_blob_anew_never_loses_it_to_a_sweep(tmp_path: Path) -> None:
    store = FileStore.open(tmp_path / "store")
    pointer = timing_cache_pointer(timing_cache_folder("NVIDIA-L4", "10.13"), "ab")
    for round_number in range(150):
        file = put(store, tmp_path, b"engine")
        aged(store, blob_name(file.digest), 99)
        store.delete_pointer(pointer)
        barrier = threading.Barrier(2)

        def build(barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            stored = put(store, tmp_path, b"engine")
            store.create_pointer(pointer, TimingCachePointer(file=stored).to_json())

        builder = threading.Thread(target=build)
        builder.start()
        barrier.wait()
        sweep(store, Claims(), RETENTION, delete=True)
        builder.join()
        found = store.get_files([file], tmp_path / "out")
        assert found.read_bytes() == b"engine", round_number
    folder = Path(store.uri.removeprefix("file://")) / blob_name("")
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_an_old_blob_in_a_bucket_is_written_again_when_it_is_put(
    open_any: OpenStore, bucket: Path, tmp_path: Path
) -> None:
    store = open_any("s3")
    file = put(store, tmp_path, b"engine")
    path = bucket / "team/engines" / blob_name(file.digest)
    moment = time.time() - 99 * DAY
    os.utime(path, (moment, moment))
    put(store, tmp_path, b"engine")
    assert sweep(store, Claims(), RETENTION, delete=True).deleted_blobs == ()
