"""What may go wrong with a store behind a network, and what its user is told."""

import json
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from typing_extensions import override

from enginesmith_contract.errors import StoreError
from enginesmith_contract.store_layout import StoredFile, TimingCachePointer, blob_name
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.open import open_store
from enginesmith_runtime.store.registry_tags import name_of_tag, tag_of_name
from enginesmith_runtime.store.settings import StoreSettings

OpenStore = Callable[[str], Store]


def put_one(store: Store, tmp_path: Path, content: bytes = b"engine" * 1000) -> StoredFile:
    (tmp_path / "model.plan").write_bytes(content)
    return store.put_files(tmp_path, [Path("model.plan")])[0]


@pytest.fixture
def server_without_conditions(s3_server: SimpleNamespace) -> Iterator[str]:
    """The real S3 server behind a proxy that refuses conditional writes, as some servers do."""

    class _Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # clients wait for "100 Continue", which 1.0 does not have

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if "If-None-Match" in self.headers:
                refusal = b"<Error><Code>NotImplemented</Code><Message>no conditions here</Message></Error>"
                self.send_response(501)
                self.send_header("Content-Length", str(len(refusal)))
                self.end_headers()
                self.wfile.write(refusal)
                return
            connection = HTTPConnection(s3_server.endpoint.removeprefix("http://"))
            connection.request(self.command, self.path, body, {k: v for k, v in self.headers.items() if k != "Expect"})
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            connection.close()
            self.close_connection = True

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815 - http.server's names

        @override
        def log_message(self, format: str, *arguments: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_a_server_without_conditional_writes_still_keeps_the_first_pointer(
    server_without_conditions: str, s3_settings: StoreSettings, bucket: Path
) -> None:
    variables = {**s3_settings.variables, "AWS_ENDPOINT_URL": server_without_conditions}
    store = open_store(f"s3://{bucket.name}/engines", StoreSettings(variables=variables))
    assert store.create_pointer("keys/a.json", b"1") == b"1"
    assert store.create_pointer("keys/a.json", b"2") == b"1"
    assert (bucket / "engines/keys/a.json").read_bytes() == b"1"


@pytest.mark.slow
def test_a_bucket_holds_the_layout_that_a_folder_has(open_any: OpenStore, bucket: Path, tmp_path: Path) -> None:
    store = open_any("s3")
    file = put_one(store, tmp_path)
    store.create_pointer("keys/a.json", b"{}")
    assert (bucket / "team/engines" / blob_name(file.digest)).read_bytes() == (tmp_path / "model.plan").read_bytes()
    assert (bucket / "team/engines/keys/a.json").read_bytes() == b"{}"


@pytest.mark.slow
@pytest.mark.parametrize("through", ["the server", "its disk"])
@pytest.mark.parametrize("content", [b"another" * 1000, b"shorter", b"engine" * 1000 + b"longer"])
def test_a_blob_that_changed_in_the_bucket_is_refused_and_not_laid_out(
    open_any: OpenStore, bucket: Path, tmp_path: Path, content: bytes, through: str
) -> None:
    store = open_any("s3")
    file = put_one(store, tmp_path)
    if through == "the server":
        store.replace_pointer(blob_name(file.digest), content)
    else:
        (bucket / "team/engines" / blob_name(file.digest)).write_bytes(content)
    with pytest.raises(StoreError, match=r"model\.plan") as caught:
        store.get_files([file], tmp_path / "out")
    assert caught.value.reason == "Tampered"
    assert file.digest in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_a_bucket_that_does_not_exist_is_named(s3_settings: StoreSettings, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket-here/engines", s3_settings)
    assert store.read_pointer("keys/a.json") is None
    for write in (lambda: put_one(store, tmp_path), lambda: store.create_pointer("keys/a.json", b"{}")):
        with pytest.raises(StoreError, match="no-such-bucket-here") as caught:
            write()
        assert caught.value.reason == "BucketMissing"


@pytest.mark.slow
def test_wrong_credentials_name_the_variables_and_not_the_values(
    s3_settings: StoreSettings, bucket: Path, tmp_path: Path
) -> None:
    variables = {**s3_settings.variables, "AWS_SECRET_ACCESS_KEY": "wr0ng"}
    store = open_store(f"s3://{bucket.name}/engines", StoreSettings(variables=variables))
    with pytest.raises(StoreError, match="AWS_SECRET_ACCESS_KEY") as caught:
        put_one(store, tmp_path)
    assert caught.value.reason == "AccessDenied"
    assert "wr0ng" not in str(caught.value)


@pytest.mark.slow
def test_the_stores_own_credentials_stand_before_the_models(s3_settings: StoreSettings, bucket: Path) -> None:
    variables = {f"ENGINESMITH_STORE_{name}": value for name, value in s3_settings.variables.items()}
    others = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "of models", "AWS_ENDPOINT_URL": "http://[::1]:9"}
    store = open_store(f"s3://{bucket.name}/engines", StoreSettings(variables={**others, **variables}))
    assert store.create_pointer("keys/a.json", b"1") == b"1"


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["s3://bucket/engines", "oci://127.0.0.1:9/team/engines"])
def test_a_service_that_does_not_answer_is_a_lost_connection(
    uri: str, monkeypatch: pytest.MonkeyPatch, s3_settings: StoreSettings
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = open_store(
        uri, StoreSettings(variables={**s3_settings.variables, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    )
    with pytest.raises(StoreError) as caught:
        store.read_pointer("keys/a.json")
    assert caught.value.reason == "ConnectionLost"
    assert caught.value.retry


@pytest.mark.slow
def test_an_engine_in_a_registry_is_an_artifact_that_container_tools_read(
    open_any: OpenStore, registry_host: str, tmp_path: Path
) -> None:
    store = open_any("oci")
    file = put_one(store, tmp_path)
    document = TimingCachePointer(file=file).to_json()
    store.create_pointer("keys/0a1b.json", document)
    repository = store.uri.removeprefix(f"oci://{registry_host}/")
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    answer = httpx.get(f"http://{registry_host}/v2/{repository}/manifests/keys__0a1b", headers=accept)
    manifest = answer.json()
    assert manifest["artifactType"] == "application/vnd.enginesmith.engine.v1+json"
    assert manifest["config"]["digest"] == f"sha256:{sha256(document).hexdigest()}"
    (layer,) = manifest["layers"]
    assert layer["annotations"]["org.opencontainers.image.title"] == "model.plan"
    assert layer["digest"] == f"sha256:{file.digest}"


@pytest.mark.slow
def test_a_registry_takes_no_pointer_to_a_blob_that_is_not_there(open_any: OpenStore) -> None:
    store = open_any("oci")
    file = StoredFile(path="model.plan", digest=sha256(b"never stored").hexdigest(), size_bytes=12)
    with pytest.raises(StoreError, match="MANIFEST_BLOB_UNKNOWN"):
        store.create_pointer("keys/a.json", TimingCachePointer(file=file).to_json())
    assert store.read_pointer("keys/a.json") is None


@pytest.mark.slow
@pytest.mark.parametrize("way", ["variables", "docker config", "own docker config"])
def test_a_registry_that_wants_a_login_gets_it(
    guarded_registry: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    variables = {}
    if way == "variables":
        variables = {
            "ENGINESMITH_STORE_REGISTRY_USERNAME": guarded_registry.user,
            "ENGINESMITH_STORE_REGISTRY_PASSWORD": guarded_registry.password,
        }
    else:
        login = b64encode(f"{guarded_registry.user}:{guarded_registry.password}".encode()).decode()
        document = {"auths": {guarded_registry.host: {"auth": login}}}
        (tmp_path / "config.json").write_text(json.dumps(document), encoding="utf-8")
        if way == "docker config":
            monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        else:
            variables = {"ENGINESMITH_STORE_DOCKER_CONFIG": str(tmp_path)}
    store = open_store(
        f"oci://{guarded_registry.host}/team/{way.replace(' ', '-')}", StoreSettings(variables=variables)
    )
    file = put_one(store, tmp_path)
    store.create_pointer("keys/a.json", TimingCachePointer(file=file).to_json())
    assert list(store.list_pointers("keys/")) == ["keys/a.json"]
    assert store.get_files([file], tmp_path / "out").read_bytes() == (tmp_path / "model.plan").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("password", [None, "wr0ng"])
def test_a_registry_without_the_right_login_says_where_it_goes(
    guarded_registry: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str | None
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    login = {} if password is None else {"REGISTRY_USERNAME": "reader", "REGISTRY_PASSWORD": password}
    store = open_store(f"oci://{guarded_registry.host}/team/engines", StoreSettings(variables=login))
    with pytest.raises(StoreError, match="DOCKER_CONFIG") as caught:
        store.read_pointer("keys/a.json")
    assert caught.value.reason == "AccessDenied"
    assert "wr0ng" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "want_tag"),
    [
        ("keys/0a1b.json", "keys__0a1b"),
        ("timing-caches/10.13.3.9/NVIDIA-L4.json", "timing-caches__10.13.3.9__NVIDIA-L4"),
        ("timing-caches/1.7_rc/a__b.json", "timing-caches__1.7_-rc__a_-_-b"),
    ],
)
def test_every_pointer_has_one_tag_and_every_tag_one_pointer(name: str, want_tag: str) -> None:
    assert tag_of_name("oci://host/repository", name) == want_tag
    assert name_of_tag(want_tag) == name


@pytest.mark.parametrize("tag", ["latest", "a_b", "keys__a_", "v1.0"])
def test_a_tag_that_somebody_else_wrote_is_no_pointer(tag: str) -> None:
    assert name_of_tag(tag) is None


@pytest.mark.parametrize("name", ["keys/" + "a" * 130 + ".json", "keys/ä.json", "keys/a"])
def test_a_name_that_no_tag_can_hold_is_refused(name: str) -> None:
    with pytest.raises(StoreError) as caught:
        tag_of_name("oci://host/repository", name)
    assert caught.value.reason == "InvalidName"


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://host/engines",
        "s3://",
        "s3:///engines",
        "oci://host",
        "s3://key:secret@bucket/engines",
        "s3://bucket/engines?endpoint=http://host",
        "gs://bucket/engines#part",
    ],
)
def test_a_uri_that_names_no_store_is_refused_without_its_secrets(uri: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(uri)
    assert caught.value.reason == "UnsupportedStore"
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize("uri", ["gs://bucket/engines", "oss://bucket/engines"])
def test_the_other_object_stores_open_by_their_own_clients(uri: str) -> None:
    variables = {
        "ENGINESMITH_STORE_ENDPOINT": "http://127.0.0.1:9",
        "OSS_ACCESS_KEY_ID": "a",
        "OSS_ACCESS_KEY_SECRET": "b",
    }
    assert open_store(uri, StoreSettings(variables=variables)).uri == uri


@pytest.mark.parametrize(("uri", "module"), [("s3://bucket/a", "s3fs"), ("oci://host/a", "oras")])
def test_a_client_that_is_not_installed_says_how_to_get_it(
    uri: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(StoreError, match=r"enginesmith\[sources\]") as caught:
        open_store(uri).read_pointer("keys/a.json")
    assert caught.value.reason == "MissingClient"
