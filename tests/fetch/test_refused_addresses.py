"""What a pod may not connect to: the rules hold for each connection, whatever led to its address."""

import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from typing_extensions import override

from enginesmith_contract.address_rules import AddressRules
from enginesmith_contract.environment import ADDRESSES
from enginesmith_contract.errors import EnginesmithError, SourceError, StoreError
from enginesmith_contract.preparation import ModelSource
from enginesmith_runtime.connection_limits import limit_connections
from enginesmith_runtime.fetch.download import RetryPolicy
from enginesmith_runtime.fetch.model import FetchedModel, fetch_model
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.open import open_store
from enginesmith_runtime.store.settings import StoreSettings

WriteModel = Callable[..., Path]
Limit = Callable[..., None]
IMPATIENT = RetryPolicy(attempts=3, first_pause_seconds=0.01)
METADATA = "169.254.169.254"


@pytest.fixture
def limit() -> Iterator[Limit]:
    """Holds this process to rules until the test ends."""

    def hold(**rules: tuple[str, ...]) -> None:
        limit_connections({ADDRESSES: AddressRules(**rules).to_json().decode()})

    yield hold
    limit_connections({})


def fetch(uri: str, folder: Path, **options: str) -> FetchedModel:
    return fetch_model(ModelSource(uri=uri, options=options), folder, SilentReporter(), retry=IMPATIENT)


def refused(uri: str, folder: Path, **options: str) -> EnginesmithError:
    with pytest.raises(SourceError) as raised:
        fetch(uri, folder, **options)
    assert raised.value.reason == "AddressRefused", raised.value
    assert not raised.value.retry
    assert "addresses.allowed" in raised.value.remedy
    return raised.value


def test_without_rules_a_model_on_this_machine_is_fetched(
    web: SimpleNamespace, served: Path, write_model: WriteModel, tmp_path: Path
) -> None:
    write_model(served / "model.onnx")
    assert fetch(f"{web.url}/model.onnx", tmp_path).size_bytes


def test_an_address_that_the_rules_do_not_allow_is_not_connected_to(
    web: SimpleNamespace, tmp_path: Path, limit: Limit
) -> None:
    limit()
    error = refused(f"{web.url}/model.onnx", tmp_path)
    assert "127.0.0.1 is a loopback address" in str(error)
    assert web.requests == []


def test_a_name_is_judged_by_the_address_that_is_connected_to(
    web: SimpleNamespace, tmp_path: Path, limit: Limit
) -> None:
    limit()
    assert "loopback" in str(refused(f"http://localhost:{web.url.rpartition(':')[2]}/model.onnx", tmp_path))
    assert web.requests == []


@pytest.mark.parametrize("spelling", ["2852039166", "0xa9fea9fe", "0xa9.0xfe.0xa9.0xfe", METADATA])
def test_no_spelling_of_a_metadata_service_is_connected_to(spelling: str, tmp_path: Path, limit: Limit) -> None:
    limit(allowed=("0.0.0.0/0",))
    assert f"{METADATA} is a metadata service" in str(refused(f"http://{spelling}/model.onnx", tmp_path))


def test_a_name_that_changes_its_address_is_judged_at_each_connection(
    web: SimpleNamespace,
    served: Path,
    write_model: WriteModel,
    tmp_path: Path,
    limit: Limit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_model(served / "model.onnx", weights="weights.bin")
    port = int(web.url.rpartition(":")[2])
    found = iter(["127.0.0.1"])

    def look_up(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(found, METADATA), port))]

    limit(allowed=("127.0.0.1/32",))
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    error = refused(f"http://models.example:{port}/model.onnx", tmp_path)
    assert METADATA in str(error)
    assert [path for path, _ in web.requests] == ["/model.onnx"]


@pytest.fixture
def redirect() -> Iterator[Callable[[str], str]]:
    """Starts a web server that leads elsewhere; returns the URL."""
    target = [""]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", target[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        @override
        def log_message(self, format: str, *arguments: object) -> None:
            """Stay silent."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()

    def lead_to(url: str) -> str:
        target[0] = url
        return f"http://127.0.0.1:{server.server_port}"

    yield lead_to
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "target",
    [f"http://{METADATA}/latest/model.onnx", "http://127.0.0.2:9/model.onnx", "http://[::ffff:169.254.169.254]/m.onnx"],
)
def test_a_redirect_is_judged_like_the_address_itself(
    redirect: Callable[[str], str], target: str, tmp_path: Path, limit: Limit
) -> None:
    limit(allowed=("127.0.0.1/32",))
    refused(f"{redirect(target)}/model.onnx", tmp_path)


def test_a_redirect_of_a_registry_is_judged_too(redirect: Callable[[str], str], tmp_path: Path, limit: Limit) -> None:
    limit(allowed=("127.0.0.1/32",))
    place = redirect(f"http://{METADATA}/v2/").removeprefix("http://")
    assert METADATA in str(refused(f"oci://{place}/models:v1", tmp_path, plainHttp="true"))


def test_a_proxy_is_not_asked_for_an_address_that_is_refused(
    web: SimpleNamespace, tmp_path: Path, limit: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", web.url)
    limit(allowed=("127.0.0.1/32",))
    assert METADATA in str(refused(f"http://{METADATA}/model.onnx", tmp_path))
    assert web.requests == []


@pytest.mark.parametrize(
    ("uri", "options"),
    [
        ("s3://models/model.onnx", {"anonymous": "true", "region": "us-east-1"}),
        ("gs://models/model.onnx", {"anonymous": "true"}),
        ("hf://owner/repository/model.onnx", {}),
        ("ms://owner/repository/model.onnx", {}),
        ("oss://models/model.onnx", {}),
    ],
)
def test_an_endpoint_that_a_tenant_names_is_judged_for_each_kind_of_source(
    web: SimpleNamespace,
    uri: str,
    options: dict[str, str],
    tmp_path: Path,
    limit: Limit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OSS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", "none")
    limit()
    assert "127.0.0.1 is a loopback address" in str(refused(uri, tmp_path, endpoint=web.url, **options))
    assert web.requests == []


def test_a_registry_that_a_tenant_names_is_judged(web: SimpleNamespace, tmp_path: Path, limit: Limit) -> None:
    limit()
    place = web.url.removeprefix("http://")
    refused(f"oci://{place}/models:v1", tmp_path, plainHttp="true")
    assert web.requests == []


@pytest.mark.parametrize("uri", ["s3://engines/vision", "oci://{place}/vision"])
def test_a_store_that_a_tenant_names_is_judged(web: SimpleNamespace, uri: str, limit: Limit) -> None:
    limit()
    place = web.url.removeprefix("http://")
    variables = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "ENGINESMITH_STORE_ENDPOINT": web.url}
    with pytest.raises(StoreError) as raised:
        open_store(uri.format(place=place), StoreSettings(variables=variables)).read_pointer("keys/none.json")
    assert raised.value.reason == "AddressRefused"
    assert web.requests == []


def test_the_endpoint_of_the_administrator_s_store_is_allowed_at_its_port_alone(
    web: SimpleNamespace, served: Path, write_model: WriteModel, tmp_path: Path, limit: Limit
) -> None:
    write_model(served / "model.onnx")
    port = int(web.url.rpartition(":")[2])
    limit(endpoints=(f"http://localhost:{port + 1}", f"http://localhost:{port}"))
    assert fetch(f"{web.url}/model.onnx", tmp_path).size_bytes
    limit(endpoints=(f"http://localhost:{port + 1}",))
    refused(f"{web.url}/model.onnx", tmp_path / "other")
