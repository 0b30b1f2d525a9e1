"""`enginesmith cache`: caches are listed, carried to another store, and refused where they are none."""

import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.cli.conftest import CommandLine

from enginesmith_cli.main import main
from enginesmith_contract.store_layout import timing_cache_folder
from enginesmith_runtime.build.timing_caches import StoredTimingCache
from enginesmith_runtime.store.open import open_store


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> SimpleNamespace:
    """Return a command line in this process, for commands that load no model."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("ENGINESMITH_HOME", str(home))

    def run(*words: str) -> SimpleNamespace:
        code = main(words)
        said = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=said.out, stderr=said.err)

    return SimpleNamespace(home=home, folder=tmp_path, run=run)


_H200, _L4 = timing_cache_folder("NVIDIA-H200", "10.6.0"), timing_cache_folder("NVIDIA-L4", "10.13.3.9")


def _cache(command_line: CommandLine, folder: str, name: str = "store") -> StoredTimingCache:
    return StoredTimingCache(open_store(str(command_line.home / name)), folder, command_line.home)


def _fill(command_line: CommandLine) -> None:
    _cache(command_line, _H200).replace((), b"of an H200", 340)
    _cache(command_line, _L4).replace((), b"of an L4", None)


def test_the_list_says_for_which_gpu_and_version_each_cache_is(quick: CommandLine) -> None:
    _fill(quick)
    listed = quick.run("cache", "list")
    assert listed.returncode == 0, listed.stderr
    assert "NVIDIA-H200  tensorrt 10.6.0  340 entries  10 bytes" in listed.stdout
    assert "NVIDIA-L4  tensorrt 10.13.3.9  entries not counted" in listed.stdout
    (one,) = json.loads(quick.run("cache", "list", "--gpu", "NVIDIA-L4", "-o", "json").stdout)
    assert (one["gpu"], one["tensorrt"], one["entries"], one["sizeBytes"]) == ("NVIDIA-L4", "10.13.3.9", None, 8)


def test_what_is_exported_can_be_imported_elsewhere_beside_what_is_there(quick: CommandLine) -> None:
    _fill(quick)
    elsewhere = _cache(quick, _H200, "elsewhere")
    elsewhere.replace((), b"of the other store", 5)
    file = quick.folder / "caches.tar"

    assert quick.run("cache", "export", str(file)).returncode == 0
    added = quick.run("cache", "import", str(file), "--store", str(quick.home / "elsewhere"))

    assert added.returncode == 0, added.stderr
    assert "added 2 timing cache(s), for NVIDIA-H200 with tensorrt 10.6.0, NVIDIA-L4" in added.stdout
    assert {one.data for one in elsewhere.read()} == {b"of an H200", b"of the other store"}
    again = quick.run("cache", "list", "--store", str(quick.home / "elsewhere"), "--gpu", "NVIDIA-H200")
    assert "340 entries" in again.stdout


def test_a_cache_of_trtexec_is_imported_for_the_named_gpu(quick: CommandLine) -> None:
    file = quick.folder / "trtexec.cache"
    file.write_bytes(b"of trtexec")
    half = quick.run("cache", "import", str(file), "--gpu", "NVIDIA-H200")
    whole = quick.run("cache", "import", str(file), "--gpu", "NVIDIA-H200", "--tensorrt", "10.6.0")
    assert half.returncode != 0
    assert "one GPU product and one TensorRT version" in half.stderr
    assert whole.returncode == 0, whole.stderr
    assert [one.data for one in _cache(quick, _H200).read()] == [b"of trtexec"]


@pytest.mark.parametrize(
    "member", ["timing-caches/../x/0123456789abcdef.cache", "timing-caches/a/b/c/d.cache", "../up"]
)
def test_an_archive_with_other_members_is_refused_and_adds_nothing(quick: CommandLine, member: str) -> None:
    file = quick.folder / "bad.tar"
    with tarfile.open(file, "w") as archive:
        info = tarfile.TarInfo(member)
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    _refused(quick, file, "is not a timing cache")


def test_an_altered_or_shortened_archive_and_another_file_are_refused(quick: CommandLine) -> None:
    _fill(quick)
    file = quick.folder / "caches.tar"
    quick.run("cache", "export", str(file), "--gpu", "NVIDIA-H200")
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"of an H200", b"of an H100"))
    _refused(quick, file, "has another digest")
    file.write_bytes(whole[:600])
    _refused(quick, file, "")
    file.write_bytes(b"of trtexec")
    _refused(quick, file, "--gpu and --tensorrt for a file from trtexec")


def _refused(quick: CommandLine, file: Path, want: str) -> None:
    store = quick.home / "untouched"
    refused = quick.run("cache", "import", str(file), "--store", str(store))
    assert refused.returncode == 18
    assert "not a file of timing caches" in refused.stderr
    assert want in refused.stderr
    assert not list(store.rglob("*.json"))


def test_an_export_of_nothing_writes_no_file(quick: CommandLine) -> None:
    file = quick.folder / "caches.tar"
    nothing = quick.run("cache", "export", str(file), "--gpu", "NVIDIA-B200")
    assert nothing.returncode != 0
    assert "the store has no such timing cache" in nothing.stderr
    assert not file.exists()


_ENGINE = """\
apiVersion: enginesmith.io/v1alpha1
kind: InferenceEngine
metadata: {name: cls}
spec:
  model: {uri: missing.onnx}
  targets: [%s]
"""


@pytest.mark.parametrize(
    ("targets", "want"),
    [
        ("{name: gpu, gpu: {minMemory: 4Gi}}, {name: cpu, backend: onnxruntime, standby: true}", "NoGpu"),
        ("{name: cpu, backend: onnxruntime}, {name: rtx, backend: tensorrt-rtx}", "no target has a timing cache"),
    ],
)
def test_prewarming_is_refused_before_a_model_is_fetched(quick: CommandLine, targets: str, want: str) -> None:
    document = quick.folder / "engine.yaml"
    document.write_text(_ENGINE % targets)
    refused = quick.run("cache", "prewarm", str(document))
    assert refused.returncode != 0
    assert "enginesmith: cls: " in refused.stderr or "enginesmith: cls/gpu: " in refused.stderr
    assert want in refused.stderr
    assert "missing.onnx" not in refused.stderr
