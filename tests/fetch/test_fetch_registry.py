"""Models as artifacts of a real OCI registry."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import httpx
import onnx
import pytest
from tests.ports import free_port
from tests.real_servers import program, running

from enginesmith_contract.errors import SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_runtime.fetch.data import FetchedData, fetch_data
from enginesmith_runtime.fetch.download import RetryPolicy
from enginesmith_runtime.fetch.model import FetchedModel, fetch_model
from enginesmith_runtime.fetch.open_origin import open_origin
from enginesmith_runtime.progress import SilentReporter

pytestmark = pytest.mark.slow

WriteModel = Callable[..., Path]
IMPATIENT = RetryPolicy(attempts=2, first_pause_seconds=0.01)
ROOT = Path(__file__).resolve().parents[2]
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


# bcrypt of the password below, as `htpasswd -B` writes it.
HTPASSWD = "reader:$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm\n"
PASSWORD = "hunter2"  # noqa: S105 - of a registry that lives as long as this test


@contextmanager
def running_registry(folder: Path, **settings: object) -> Iterator[str]:
    port = free_port()
    configuration = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        **settings,
    }
    # JSON is YAML.
    (folder / "config.yml").write_text(json.dumps(configuration))
    with running([program("registry"), "serve", folder / "config.yml"], port):
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real registry that anybody may read: its host and port."""
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def guarded_registry(tmp_path: Path) -> Iterator[str]:
    """A real registry that asks for a password."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    (folder / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "models", "path": str(folder / "htpasswd")}}
    with running_registry(folder, auth=auth) as address:
        yield address


def push_blob(registry: str, content: bytes) -> dict[str, object]:
    digest = f"sha256:{sha256(content).hexdigest()}"
    upload = httpx.post(f"http://{registry}/v2/models/m/blobs/uploads/").headers["Location"]
    httpx.put(httpx.URL(upload).copy_merge_params({"digest": digest}), content=content).raise_for_status()
    return {"mediaType": "application/octet-stream", "digest": digest, "size": len(content)}


def push(registry: str, tag: str, files: dict[str, bytes]) -> str:
    """Push an artifact; returns its digest. A file of the name "" gets no title."""
    layers = [
        push_blob(registry, content) | ({"annotations": {"org.opencontainers.image.title": name}} if name else {})
        for name, content in files.items()
    ]
    return push_manifest(
        registry,
        tag,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": "application/vnd.enginesmith.model",
            "config": push_blob(registry, b"{}") | {"mediaType": "application/vnd.oci.empty.v1+json"},
            "layers": layers,
        },
    )


def push_manifest(registry: str, tag: str, manifest: dict[str, object]) -> str:
    headers = {"Content-Type": str(manifest["mediaType"])}
    answer = httpx.put(f"http://{registry}/v2/models/m/manifests/{tag}", content=json.dumps(manifest), headers=headers)
    answer.raise_for_status()
    return answer.headers["Docker-Content-Digest"]


def fetch(uri: str, folder: Path) -> FetchedModel:
    return fetch_model(ModelSource(uri=uri), folder, SilentReporter(), retry=IMPATIENT)


@pytest.fixture
def model(tmp_path: Path, write_model: WriteModel) -> dict[str, bytes]:
    write_model(tmp_path / "m.onnx", weights="weights.bin")
    return {name: (tmp_path / name).read_bytes() for name in ("m.onnx", "weights.bin")}


def test_a_model_with_weights_comes_by_tag_and_by_digest(
    registry: str, tmp_path: Path, model: dict[str, bytes]
) -> None:
    digest = push(registry, "v1", model)
    by_tag = fetch(f"oci://{registry}/models/m:v1", tmp_path / "fetched")
    by_digest = fetch(f"oci://{registry}/models/m@{digest}", tmp_path / "fetched")
    assert by_tag == by_digest
    assert onnx.load(by_tag.path).graph.initializer[0].raw_data
    assert [file.path for file in by_tag.files] == ["m.onnx", "weights.bin"]


def test_a_single_file_needs_no_title(registry: str, tmp_path: Path, write_model: WriteModel) -> None:
    content = write_model(tmp_path / "m.onnx").read_bytes()
    push(registry, "untitled", {"": content})
    assert fetch(f"oci://{registry}/models/m:untitled", tmp_path / "fetched").path.read_bytes() == content


def test_one_of_several_models_is_named_behind_a_hash(registry: str, tmp_path: Path, write_model: WriteModel) -> None:
    content = write_model(tmp_path / "det.onnx").read_bytes()
    push(registry, "several", {"det.onnx": content, "rec.onnx": b"other"})
    with pytest.raises(SourceError, match=r"det\.onnx, rec\.onnx") as caught:
        fetch(f"oci://{registry}/models/m:several", tmp_path / "fetched")
    assert caught.value.reason == "NotFound"
    fetched = fetch(f"oci://{registry}/models/m:several#det.onnx", tmp_path / "fetched")
    assert fetched.path.read_bytes() == content


def test_a_title_outside_the_folder_is_no_file(registry: str, tmp_path: Path) -> None:
    push(registry, "escapes", {"../../../m.onnx": b"1", "notes": b"2"})
    with pytest.raises(SourceError, match=r"no \.onnx file"):
        fetch(f"oci://{registry}/models/m:escapes", tmp_path / "fetched")
    assert not list(tmp_path.rglob("m.onnx"))


def test_calibration_data_comes_as_files_or_as_one_archive(registry: str, tmp_path: Path) -> None:
    files = {"b.npz": b"2", "deep/a.npz": b"1", "notes.md": b"3"}
    push(registry, "data", files)
    push(registry, "archive", {"data.tar": b"archive"})

    def fetched(tag: str) -> FetchedData:
        source = ModelSource(uri=f"oci://{registry}/models/m:{tag}")
        return fetch_data(source, tmp_path / "work", SilentReporter(), select=select)

    def select(names: Iterable[str]) -> list[str]:
        return sorted(name for name in names if name.endswith(".npz"))

    folder = fetched("data")
    assert {path.name: path.read_bytes() for path in folder.path.rglob("*.*")} == {"b.npz": b"2", "a.npz": b"1"}
    assert fetched("data#b.npz").path.read_bytes() == b"2"
    archive = fetched("archive")
    assert (archive.path.name, archive.digest) == ("data.tar", sha256(b"archive").hexdigest())


def test_missing_weights_are_named(registry: str, tmp_path: Path, model: dict[str, bytes]) -> None:
    push(registry, "incomplete", {"m.onnx": model["m.onnx"]})
    with pytest.raises(SourceError, match=r"weights\.bin") as caught:
        fetch(f"oci://{registry}/models/m:incomplete", tmp_path / "fetched")
    assert caught.value.reason == "ExternalDataMissing"


@pytest.mark.parametrize("reference", ["models/m:gone", "models/gone:v1", f"models/m@sha256:{'0' * 64}"])
def test_an_artifact_that_is_not_there_is_not_found(registry: str, tmp_path: Path, reference: str) -> None:
    with pytest.raises(SourceError, match="404") as caught:
        fetch(f"oci://{registry}/{reference}", tmp_path)
    assert caught.value.reason == "NotFound"


def test_an_index_of_images_is_no_artifact(registry: str, tmp_path: Path) -> None:
    push_manifest(registry, "index", {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []})
    with pytest.raises(SourceError, match="oras push") as caught:
        fetch(f"oci://{registry}/models/m:index", tmp_path)
    assert caught.value.reason == "NotFound"


def test_reading_goes_on_from_an_offset(registry: str) -> None:
    push(registry, "range", {"m.onnx": b"0123456789"})
    digest = f"sha256:{sha256(b'0123456789').hexdigest()}"
    with (
        open_origin(ModelSource(uri=f"oci://{registry}/models/m:range")) as origin,
        origin.open("m.onnx", offset=4, validator=digest) as transfer,
    ):
        assert transfer.offset == 4
        assert b"".join(transfer.chunks) == b"456789"


def test_a_registry_that_is_not_there_is_a_lost_connection(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        fetch("oci://127.0.0.1:9/models/m:v1", tmp_path)
    assert caught.value.reason == "ConnectionLost"
    assert caught.value.retry


@pytest.mark.parametrize("password", [PASSWORD, "wrong", None])
@pytest.mark.parametrize(
    ("variable", "name"),
    [("DOCKER_CONFIG", "config.json"), ("ENGINESMITH_SOURCE_CREDENTIALS", ".dockerconfigjson")],
    ids=["container tools", "secret"],
)
def test_a_password_comes_from_the_configuration_of_the_container_tools_or_a_secret(
    guarded_registry: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    name: str,
    password: str | None,
) -> None:
    (tmp_path / "docker").mkdir()
    monkeypatch.setenv(variable, str(tmp_path / "docker"))
    if password is not None:
        login = {guarded_registry: {"auth": b64encode(f"reader:{password}".encode()).decode()}}
        (tmp_path / "docker" / name).write_text(json.dumps({"auths": login}))
    with pytest.raises(SourceError) as caught:
        fetch(f"oci://{guarded_registry}/models/m:v1", tmp_path)
    # Who is let in learns that there is no such model.
    assert caught.value.reason == ("NotFound" if password == PASSWORD else "AccessDenied")
    assert PASSWORD not in str(caught.value)
