"""Models in a real S3 server, and the addresses of the stores that cannot be run here."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from tests.ports import free_port
from tests.real_servers import program, running

from enginesmith_contract.errors import SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_runtime.fetch.data import fetch_data, local_files
from enginesmith_runtime.fetch.download import RetryPolicy
from enginesmith_runtime.fetch.model import FetchedModel, fetch_model
from enginesmith_runtime.fetch.open_origin import open_origin
from enginesmith_runtime.progress import SilentReporter

WriteModel = Callable[..., Path]
IMPATIENT = RetryPolicy(attempts=2, first_pause_seconds=0.01)
ROOT = Path(__file__).resolve().parents[2]
KEYS = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "hunter2"}


@pytest.fixture(scope="session")
def s3_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A real S3 server: its endpoint, and the folder whose folders are its buckets."""
    folder, port = tmp_path_factory.mktemp("s3"), free_port()
    access = ["--access", KEYS["AWS_ACCESS_KEY_ID"], "--secret", KEYS["AWS_SECRET_ACCESS_KEY"]]
    with running([program("versitygw"), "--quiet", "--port", f"127.0.0.1:{port}", *access, "posix", folder], port):
        yield f"http://127.0.0.1:{port}", folder


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(s3_root: tuple[str, Path], tmp_path: Path) -> Path:
    import s3fs  # noqa: PLC0415 - slow to import, and only for these tests

    endpoint, root = s3_root
    name = "b" + sha256(str(tmp_path).encode()).hexdigest()[:20]
    arguments = {"key": KEYS["AWS_ACCESS_KEY_ID"], "secret": KEYS["AWS_SECRET_ACCESS_KEY"]}
    s3fs.S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True, **arguments).mkdir(name)
    return root / name


def fetch(uri: str, endpoint: str, folder: Path) -> FetchedModel:
    source = ModelSource(uri=uri, options={"endpoint": endpoint, "region": "us-east-1"})
    return fetch_model(source, folder, SilentReporter(), retry=IMPATIENT)


@pytest.mark.slow
@pytest.mark.usefixtures("keys")
def test_a_model_with_weights_comes_from_a_real_s3_server(
    s3_root: tuple[str, Path], bucket: Path, tmp_path: Path, write_model: WriteModel
) -> None:
    import s3fs  # noqa: PLC0415 - slow to import, and only for these tests

    write_model(tmp_path / "m.onnx", weights="weights.bin")
    files = s3fs.S3FileSystem(endpoint_url=s3_root[0], skip_instance_cache=True)
    for name in ("m.onnx", "weights.bin"):
        files.put_file(str(tmp_path / name), f"{bucket.name}/models/{name}")
    fetched = fetch(f"s3://{bucket.name}/models/m.onnx", s3_root[0], tmp_path / "fetched")
    assert fetched.files[1].digest == sha256((tmp_path / "weights.bin").read_bytes()).hexdigest()
    assert onnx.load(fetched.path).graph.initializer[0].raw_data
    inode = fetched.path.stat().st_ino
    again = fetch(f"s3://{bucket.name}/models/m.onnx", s3_root[0], tmp_path / "fetched")
    assert again == fetched
    assert again.path.stat().st_ino == inode


@pytest.mark.slow
@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("uri", ["s3://{}/set/", "s3://{}/set", "s3://{}/set/a.npz"])
def test_calibration_data_is_a_prefix_or_an_object(
    s3_root: tuple[str, Path], bucket: Path, tmp_path: Path, uri: str
) -> None:
    import s3fs  # noqa: PLC0415 - slow to import, and only for these tests

    files = s3fs.S3FileSystem(endpoint_url=s3_root[0], skip_instance_cache=True)
    for name in ("set/a.npz", "set/deep/b.npz", "settings/c.npz"):
        files.pipe_file(f"{bucket.name}/{name}", name.encode())
    source = ModelSource(uri=uri.format(bucket.name), options={"endpoint": s3_root[0], "region": "us-east-1"})

    found = fetch_data(source, tmp_path / "fetched", SilentReporter())

    if uri.endswith(".npz"):
        assert found.digest == sha256(b"set/a.npz").hexdigest()
    else:
        names = [file.relative_to(found.path).as_posix() for file in local_files(found.path)]
        assert names == ["a.npz", "deep/b.npz"]
    with pytest.raises(SourceError) as caught:
        fetch_data(source.model_copy(update={"uri": f"s3://{bucket.name}/gone/"}), tmp_path / "f", SilentReporter())
    assert caught.value.reason == "NotFound"


@pytest.mark.slow
@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("name", ["{}/gone.onnx", "no-such-bucket-here/m.onnx"])
def test_an_object_that_is_not_there_is_not_found(
    s3_root: tuple[str, Path], bucket: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(SourceError, match="s3://") as caught:
        fetch(f"s3://{name.format(bucket.name)}", s3_root[0], tmp_path)
    assert caught.value.reason == "NotFound"


@pytest.mark.slow
@pytest.mark.parametrize("secret", ["wrong", None])
def test_wrong_and_missing_credentials_are_named_and_not_shown(
    s3_root: tuple[str, Path], bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str | None
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    # No other source of credentials answers on this machine.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    if secret is not None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    with pytest.raises(SourceError, match="AWS_ACCESS_KEY_ID") as caught:
        fetch(f"s3://{bucket.name}/m.onnx", s3_root[0], tmp_path)
    assert caught.value.reason == "AccessDenied"
    assert "wrong" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.usefixtures("keys")
def test_an_endpoint_that_is_not_there_is_a_lost_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(SourceError) as caught:
        fetch("s3://bucket/m.onnx", "http://127.0.0.1:9", tmp_path)
    assert caught.value.reason == "ConnectionLost"
    assert caught.value.retry


@pytest.mark.slow
@pytest.mark.usefixtures("keys")
def test_reading_goes_on_from_an_offset_while_the_object_is_the_same(s3_root: tuple[str, Path], bucket: Path) -> None:
    import s3fs  # noqa: PLC0415 - slow to import, and only for these tests

    path = f"{bucket.name}/m.onnx"
    files = s3fs.S3FileSystem(endpoint_url=s3_root[0], skip_instance_cache=True)
    files.pipe_file(path, b"0123456789")
    source = ModelSource(uri=f"s3://{path}", options={"endpoint": s3_root[0]})
    with open_origin(source) as origin:
        with origin.open("m.onnx", offset=0, validator=None) as transfer:
            validator = transfer.validator
            assert transfer.total_bytes == 10
        with origin.open("m.onnx", offset=4, validator=validator) as transfer:
            assert b"".join(transfer.chunks) == b"456789"
        files.pipe_file(path, b"abcdefghij")
        with origin.open("m.onnx", offset=4, validator=validator) as transfer:
            assert b"".join(transfer.chunks) == b"abcdefghij"


@pytest.mark.parametrize(
    ("uri", "want_address", "want_model"),
    [
        ("gs://bucket/models/m.onnx", "gs://bucket/models/weights.bin", "m.onnx"),
        ("oss://bucket/m.onnx", "oss://bucket/weights.bin", "m.onnx"),
        ("hf://owner/repository/onnx/m.onnx", "hf://owner/repository/onnx/weights.bin", "m.onnx"),
        ("hf://owner/repository@v1.0/m.onnx", "hf://owner/repository@v1.0/weights.bin", "m.onnx"),
    ],
)
def test_weights_lie_beside_the_model_in_every_store(uri: str, want_address: str, want_model: str) -> None:
    options = {"endpoint": "http://127.0.0.1:9"}
    if uri.startswith("gs"):
        options["anonymous"] = "true"
    with open_origin(ModelSource(uri=uri, options=options)) as origin:
        assert origin.model == want_model
        assert origin.describe("weights.bin") == want_address


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/", "gs:///m.onnx"])
def test_an_address_without_bucket_or_file_is_refused(uri: str) -> None:
    with pytest.raises(SourceError, match="BUCKET/PATH") as caught, open_origin(ModelSource(uri=uri)):
        pass
    assert caught.value.reason == "NotFound"


def test_an_option_that_could_be_a_secret_is_refused() -> None:
    source = ModelSource(uri="s3://bucket/m.onnx", options={"secret": "hunter2"})
    with pytest.raises(SourceError, match="environment") as caught, open_origin(source):
        pass
    assert caught.value.reason == "UnknownOption"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["s3", "gs", "oss", "hf", "oci"])
def test_a_client_that_is_not_installed_says_how_to_get_it(scheme: str, tmp_path: Path) -> None:
    # A module of the client's name that cannot be imported stands before the real one, as in an image without extras.
    for module in ("s3fs", "gcsfs", "ossfs", "huggingface_hub", "oras"):
        (tmp_path / f"{module}.py").write_text(f"raise ImportError('none', name='{module}')")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from pathlib import Path; from enginesmith_runtime.fetch.model import fetch_model\n"
        "from enginesmith_contract.preparation import ModelSource\n"
        "from enginesmith_contract.errors import SourceError\n"
        "from enginesmith_runtime.progress import SilentReporter\n"
        "try:\n"
        f"    fetch_model(ModelSource(uri='{scheme}://host/a/m.onnx'), Path('unused'), SilentReporter())\n"
        "except SourceError as error:\n"
        "    print(error.reason, error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("MissingClient ")
    assert "pip install 'enginesmith[sources]'" in run.stdout


def test_the_oss_account_of_the_environment_signs_requests(
    web: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # ossfs reads no variables by itself.
    monkeypatch.setenv("OSS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", "hunter2")
    source = ModelSource(uri="oss://bucket/models/m.onnx", options={"endpoint": web.url})
    with pytest.raises(SourceError):
        fetch_model(source, tmp_path / "fetched", SilentReporter(), retry=IMPATIENT)
    assert any((value or "").startswith("OSS reader:") for value in web.authorizations)
