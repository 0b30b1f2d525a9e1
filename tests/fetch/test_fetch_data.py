"""Calibration data from a folder, a file, a web server and a volume: used in place or downloaded, known by a digest."""

from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from enginesmith_contract.errors import SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_runtime.fetch.data import fetch_data
from enginesmith_runtime.progress import SilentReporter


def _folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def test_a_local_folder_is_used_in_place_and_known_by_names_and_contents(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "data", {"b.npz": b"2", "deep/a.npz": b"1", ".hidden/c": b"3", ".DS_Store": b"4"})
    lines = "".join(f"{name} {sha256(text).hexdigest()}\n" for name, text in (("b.npz", b"2"), ("deep/a.npz", b"1")))

    found = fetch_data(ModelSource(uri="data"), tmp_path / "work", SilentReporter(), base=tmp_path)

    assert (found.path, found.digest) == (folder, sha256(lines.encode()).hexdigest())
    (folder / "b.npz").rename(folder / "c.npz")
    renamed = fetch_data(ModelSource(uri=str(folder)), tmp_path / "work", SilentReporter())
    assert renamed.digest != found.digest


def test_a_file_from_the_web_is_known_by_its_sha256(tmp_path: Path, served: Path, web: SimpleNamespace) -> None:
    (served / "set.npz").write_bytes(b"samples")
    digest = sha256(b"samples").hexdigest()

    found = fetch_data(ModelSource(uri=f"{web.url}/set.npz", sha256=digest), tmp_path / "work", SilentReporter())

    assert found.digest == digest
    assert found.path.read_bytes() == b"samples"
    assert found.path.name == "set.npz"


def test_other_data_than_the_document_names_is_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "data", {"a.npz": b"1"})

    with pytest.raises(SourceError) as refused:
        fetch_data(ModelSource(uri=str(folder), sha256="0" * 64), tmp_path / "work", SilentReporter())

    assert refused.value.reason == "DigestMismatch"
    assert sha256(b"1").hexdigest() in refused.value.why
    assert "calibration.digest" in refused.value.remedy


@pytest.mark.parametrize("made", [True, False])
def test_an_empty_or_missing_folder_is_refused(tmp_path: Path, *, made: bool) -> None:
    folder = tmp_path / "data"
    if made:
        folder.mkdir()

    with pytest.raises(SourceError) as refused:
        fetch_data(ModelSource(uri=str(folder)), tmp_path / "work", SilentReporter())

    assert refused.value.reason == "NotFound"
    assert "data" in refused.value.where
