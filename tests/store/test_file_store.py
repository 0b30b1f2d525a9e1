"""A store in a folder: what was put comes back, and what is not what was put is refused."""

import os
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from enginesmith_contract.errors import StoreError
from enginesmith_contract.store_layout import StoredFile, blob_name, engine_pointer
from enginesmith_runtime.store.file_store import FileStore
from enginesmith_runtime.store.open import open_store

DAY_SECONDS = 24 * 3600.0


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    folder = tmp_path / "engine"
    (folder / "parts").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"model" * 1000)
    (folder / "parts" / "weights.bin").write_bytes(b"weights" * 400_000)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore.open(tmp_path / "store")


def put(store: FileStore, engine: Path) -> tuple[StoredFile, ...]:
    return store.put_files(engine, [engine / "model.onnx", Path("parts/weights.bin")])


def blob(store: FileStore, file: StoredFile) -> Path:
    return Path(store.uri.removeprefix("file://")) / blob_name(file.digest)


@pytest.mark.parametrize("private", [False, True])
def test_files_come_back_under_their_paths(store: FileStore, engine: Path, tmp_path: Path, *, private: bool) -> None:
    files = put(store, engine)
    first = store.get_files(files, tmp_path / "out", private=private)
    assert first == tmp_path / "out" / "model.onnx"
    assert [file.path for file in files] == ["model.onnx", "parts/weights.bin"]
    assert first.read_bytes() == (engine / "model.onnx").read_bytes()
    assert (tmp_path / "out/parts/weights.bin").read_bytes() == (engine / "parts/weights.bin").read_bytes()
    assert (first.stat().st_nlink == 1) is private


def test_laying_out_twice_replaces_what_is_there(store: FileStore, engine: Path, tmp_path: Path) -> None:
    files = put(store, engine)
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_bytes(b"older")
    store.get_files(files, out)
    assert store.get_files(files, out).read_bytes() == (engine / "model.onnx").read_bytes()


def test_a_blob_that_exists_is_not_rewritten(store: FileStore, engine: Path) -> None:
    (model, _) = put(store, engine)
    before = blob(store, model).stat()
    put(store, engine)
    assert blob(store, model).stat().st_ino == before.st_ino
    assert blob(store, model).stat().st_mtime_ns == before.st_mtime_ns


def test_nothing_temporary_stays_after_writing(store: FileStore, engine: Path, tmp_path: Path) -> None:
    store.get_files(put(store, engine), tmp_path / "out", private=True)
    with store.exclusive(engine_pointer("k")):
        store.create_pointer(engine_pointer("k"), b"{}")
    store.create_pointer(engine_pointer("k"), b"[]")
    assert list(tmp_path.rglob(".*")) == []
    assert list((tmp_path / "store" / "locks").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "want_reason"),
    [
        (lambda path: path.write_bytes(b"m0del" * 1000), "Tampered"),
        (lambda path: path.write_bytes(b"model"), "Tampered"),
        (lambda path: path.unlink(), "BlobMissing"),
    ],
    ids=["another byte", "shorter", "gone"],
)
def test_a_blob_that_changed_is_refused_and_not_laid_out(
    store: FileStore, engine: Path, tmp_path: Path, change: object, want_reason: str
) -> None:
    files = put(store, engine)
    path = blob(store, files[0])
    path.chmod(0o644)
    assert callable(change)
    change(path)
    with pytest.raises(StoreError, match=r"model\.onnx") as caught:
        store.get_files(files, tmp_path / "out")
    assert caught.value.reason == want_reason
    assert files[0].digest in str(caught.value)
    assert "elete" in caught.value.remedy
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_a_tampered_blob_is_written_anew_when_its_content_is_put_again(
    store: FileStore, engine: Path, tmp_path: Path
) -> None:
    files = put(store, engine)
    path = blob(store, files[0])
    path.chmod(0o644)
    path.write_bytes(b"m0del" * 1000)
    assert put(store, engine) == files
    assert store.get_files(files, tmp_path / "out").read_bytes() == (engine / "model.onnx").read_bytes()


def test_blobs_and_pointers_are_read_only_files(store: FileStore, engine: Path) -> None:
    (model, _) = put(store, engine)
    assert stat.S_IMODE(blob(store, model).stat().st_mode) == 0o444


@pytest.mark.parametrize("path", ["../outside", "/etc/outside", "a/../../outside"])
def test_a_stored_path_that_leaves_its_folder_is_refused(store: FileStore, tmp_path: Path, path: str) -> None:
    file = StoredFile(path=path, digest=sha256(b"").hexdigest(), size_bytes=0)
    with pytest.raises(StoreError) as caught:
        store.get_files([file], tmp_path / "out")
    assert caught.value.reason == "InvalidName"


def test_the_first_pointer_wins_and_a_replaced_one_is_the_last(store: FileStore) -> None:
    assert store.read_pointer("keys/a.json") is None
    assert store.create_pointer("keys/a.json", b"1") == b"1"
    assert store.create_pointer("keys/a.json", b"2") == b"1"
    store.replace_pointer("keys/a.json", b"3")
    assert store.read_pointer("keys/a.json") == b"3"


def test_pointers_are_listed_sorted_below_their_prefix(store: FileStore) -> None:
    assert list(store.list_pointers("keys/")) == []
    for name in ("keys/b.json", "keys/a.json", "timing-caches/10.13/L4.json"):
        store.create_pointer(name, b"{}")
    assert list(store.list_pointers("keys/")) == ["keys/a.json", "keys/b.json"]
    assert list(store.list_pointers("")) == ["keys/a.json", "keys/b.json", "timing-caches/10.13/L4.json"]


@pytest.mark.parametrize("name", ["../a.json", "/a.json", ""])
def test_a_pointer_outside_the_store_is_refused(store: FileStore, name: str) -> None:
    with pytest.raises(StoreError) as caught:
        store.create_pointer(name, b"{}")
    assert caught.value.reason == "InvalidName"


def test_opening_removes_old_leftovers_and_spares_young_ones(tmp_path: Path, engine: Path) -> None:
    root = tmp_path / "store"
    store = FileStore.open(root)
    put(store, engine)
    old, young = root / "blobs/sha256/.tmp-old", root / "blobs/sha256/.tmp-young"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    written_at = young.stat().st_mtime
    os.utime(old, (written_at - DAY_SECONDS - 60, written_at - DAY_SECONDS - 60))
    FileStore.open(root, now=written_at + 30)
    assert not old.exists()
    assert young.exists()


def test_opening_spares_the_file_of_a_slow_writer_that_still_lives(tmp_path: Path, engine: Path) -> None:
    import fcntl  # noqa: PLC0415 - only this test stands in for a writer

    root = tmp_path / "store"
    put(FileStore.open(root), engine)
    slow = root / "blobs/sha256/.tmp-slow"
    with slow.open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        FileStore.open(root, now=slow.stat().st_mtime + 10 * DAY_SECONDS)
        assert slow.exists()
    FileStore.open(root, now=slow.stat().st_mtime + 10 * DAY_SECONDS)
    assert not slow.exists()


@pytest.mark.parametrize("spelling", ["{}", "file://{}", "file://localhost{}"])
def test_a_store_opens_by_path_and_by_uri(tmp_path: Path, spelling: str) -> None:
    store = open_store(spelling.format(tmp_path / "a store"))
    store.create_pointer("keys/a.json", b"1")
    assert open_store(store.uri).read_pointer("keys/a.json") == b"1"


@pytest.mark.parametrize(
    ("uri", "want_reason", "want_text"),
    [
        ("ftp://host/engines", "UnsupportedStore", "file:///"),
        ("file://engines/a", "UnsupportedStore", "file:///engines/a"),
    ],
)
def test_a_store_that_is_not_supported_says_what_is(uri: str, want_reason: str, want_text: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(uri)
    assert caught.value.reason == want_reason
    assert want_text in str(caught.value)


def test_a_file_in_the_place_of_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(StoreError) as caught:
        open_store(str(tmp_path / "store"))
    assert caught.value.reason == "NotAFolder"


def test_a_source_that_cannot_be_read_names_the_file(store: FileStore, engine: Path) -> None:
    with pytest.raises(StoreError, match="gone") as caught:
        store.put_files(engine, [Path("gone")])
    assert caught.value.reason == "StoreFailed"
