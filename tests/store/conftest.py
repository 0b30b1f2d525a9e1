"""Stores of every kind, on servers of their own on 127.0.0.1."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.ports import free_port
from tests.real_servers import program, running

from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.open import open_store
from enginesmith_runtime.store.settings import StoreSettings

KEYS = {"AWS_ACCESS_KEY_ID": "builder", "AWS_SECRET_ACCESS_KEY": "hunter2"}
PASSWORD = "hunter2"  # noqa: S105 - of a registry that lives as long as these tests
# bcrypt of the password above, as `htpasswd -B` writes it.
HTPASSWD = "reader:$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm\n"

OpenStore = Callable[..., Store]


@contextmanager
def running_registry(folder: Path, **settings: object) -> Iterator[str]:
    """A registry; yields its host and port."""
    port = free_port()
    configuration = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
        **settings,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yml").write_text(json.dumps(configuration), encoding="utf-8")
    with running([program("registry"), "serve", folder / "config.yml"], port):
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A real S3 server: `endpoint`, and `folder`, whose folders are its buckets."""
    folder, port = tmp_path_factory.mktemp("s3"), free_port()
    access = ["--access", KEYS["AWS_ACCESS_KEY_ID"], "--secret", KEYS["AWS_SECRET_ACCESS_KEY"]]
    command = [program("versitygw"), "--quiet", "--port", f"127.0.0.1:{port}", *access, "posix", folder]
    with running([str(word) for word in command], port):
        yield SimpleNamespace(endpoint=f"http://127.0.0.1:{port}", folder=folder)


@pytest.fixture(scope="session")
def registry_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real OCI registry that wants no login."""
    with running_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="session")
def guarded_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A real OCI registry with one account: `host`, `user`, `password`."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "htpasswd").write_text(HTPASSWD, encoding="ascii")
    auth = {"htpasswd": {"realm": "engines", "path": str(folder / "htpasswd")}}
    with running_registry(folder, auth=auth) as host:
        yield SimpleNamespace(host=host, user="reader", password=PASSWORD)


@pytest.fixture
def s3_settings(s3_server: SimpleNamespace) -> StoreSettings:
    return StoreSettings(variables={**KEYS, "AWS_ENDPOINT_URL": s3_server.endpoint, "AWS_REGION": "us-east-1"})


@pytest.fixture
def bucket(s3_server: SimpleNamespace, tmp_path: Path) -> Path:
    """The folder behind a new bucket of the test's own."""
    import s3fs  # noqa: PLC0415 - slow to import, and only for these tests

    name = "b" + sha256(str(tmp_path).encode()).hexdigest()[:20]
    arguments = {"key": KEYS["AWS_ACCESS_KEY_ID"], "secret": KEYS["AWS_SECRET_ACCESS_KEY"]}
    s3fs.S3FileSystem(endpoint_url=s3_server.endpoint, skip_instance_cache=True, **arguments).mkdir(name)
    return Path(s3_server.folder) / name


@pytest.fixture
def open_any(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens the test's own store of a kind ("file", "s3", "oci"), as often as it is called."""

    def opened(kind: str) -> Store:
        match kind:
            case "s3":
                uri = f"s3://{request.getfixturevalue('bucket').name}/team/engines"
                return open_store(uri, request.getfixturevalue("s3_settings"))
            case "oci":
                repository = "team/r" + sha256(str(tmp_path).encode()).hexdigest()[:20]
                return open_store(f"oci://{request.getfixturevalue('registry_host')}/{repository}")
            case _:
                return open_store(str(tmp_path / "store"))

    return opened
