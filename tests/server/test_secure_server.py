"""A server with TLS, client certificates and tokens, asked by the clients that people have, on each transport."""

import http.client
import json
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.server.certificates import Authority, Identity, mount, mount_tls
from tests.server.conftest import SERVICE, Client, RunningServer, running_server, serve_request
from tests.server.engine_store import EngineStore
from tests.server.waiting import metrics_of, wait_for

from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_contract.serve_request import TransportName

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MakeRequest = Callable[..., pb.ModelInferRequest]
Connect = Callable[..., Client]
SUM = [[1, 2, 3, 4], [5, 6, 7, 8]]
HEALTH = "/grpc.health.v1.Health/Check"
on_http2 = pytest.mark.parametrize("server", ["http2"], indirect=True)


@dataclass(frozen=True)
class SecureServer:
    """A server and the folders that its Secrets would be."""

    running: RunningServer
    authority: Authority
    folder: Path

    def path(self, name: str) -> str:
        """Return a file of the client."""
        return str(self.folder / "client" / name)

    @property
    def address(self) -> str:
        """host:port of gRPC, by the name of the certificate."""
        return self.running.address.replace("127.0.0.1", "localhost")

    @property
    def http(self) -> str:
        """host:port of HTTP."""
        return self.running.http.replace("127.0.0.1", "localhost")

    def for_driver(self, address: str) -> str:
        """Return what tritonclient's driver takes."""
        files = {name: self.path(file) for name, file in (("ca", "ca.crt"), ("cert", "tls.crt"), ("key", "tls.key"))}
        return json.dumps({"address": address, "token": "token-of-one", **files})


@pytest.fixture(scope="module", params=["http2", "front-ends", "grpcio"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, engine_store: EngineStore, adder_key: str
) -> Iterator[SecureServer]:
    folder, authority = tmp_path_factory.mktemp("secure"), Authority.named("all")
    files = mount_tls(folder / "tls", authority.issue(), client_ca=authority.pem, names=("localhost",))
    mount_tls(folder / "client", authority.issue("client"), client_ca=authority.pem)
    mount(folder / "tokens", {"one": "token-of-one\n", "two": "first-of-two\nsecond-of-two"})
    serve = serve_request(
        engine_store,
        {"adder": adder_key},
        transport=TransportName.GRPCIO if request.param == "grpcio" else None,
        front_ends=2 if request.param == "front-ends" else 0,
        http_address="127.0.0.1:0",
        health_address="127.0.0.1:0",
        tls=files,
        tokens=str(folder / "tokens"),
    )
    with running_server(folder, serve) as running:
        yield SecureServer(running, authority, folder)


@pytest.fixture
def connect(server: SecureServer) -> Iterator[Connect]:
    """Return a function from an identity to a client of the server."""
    channels = []

    def open_client(identity: Identity | None) -> Client:
        certificate, key = (None, None) if identity is None else (identity.certificate, identity.key)
        credentials = grpc.ssl_channel_credentials(server.authority.pem, key, certificate)
        channels.append(grpc.secure_channel(server.address, credentials, [("grpc.use_local_subchannel_pool", 1)]))
        return Client(channels[-1])

    yield open_client
    for channel in channels:
        channel.close()


def _bearer(token: str) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer {token}"),), "timeout": 120}


def test_a_call_needs_a_certificate_and_a_token_and_health_needs_no_token(
    server: SecureServer, connect: Connect, adder_request: MakeRequest
) -> None:
    client = connect(server.authority.issue("client"))
    for token in ("token-of-one", "first-of-two", "second-of-two"):
        assert client.infer(adder_request(id=token), **_bearer(token)).id == token
    for options in (_bearer("token-of-three"), {"metadata": (("authorization", "token-of-one"),)}, {}):
        refused = client.begin("ModelInfer", adder_request(), **{"timeout": 120, **options})
        assert refused.code() is grpc.StatusCode.UNAUTHENTICATED, options
        assert "authorization: Bearer TOKEN" in refused.details()
    assert client.begin("ModelMetadata", pb.ModelMetadataRequest(name="adder")).code() is (
        grpc.StatusCode.UNAUTHENTICATED
    )
    assert client.call("ServerReady", pb.ServerReadyRequest()).ready
    assert client.call("ModelReady", pb.ModelReadyRequest(name="adder")).ready
    assert client.channel.unary_unary(HEALTH)(b"", timeout=120) == b"\x08\x01"
    stranger = connect(None).begin("ServerReady", pb.ServerReadyRequest(), timeout=120)
    assert stranger.code() is grpc.StatusCode.UNAVAILABLE
    # kubelet's port has neither.
    with grpc.insecure_channel(str(server.running.ready["health"])) as channel:
        assert channel.unary_unary(HEALTH)(b"", timeout=120) == b"\x08\x01"


def test_each_message_of_a_stream_counts_for_the_client_of_the_stream(
    server: SecureServer, connect: Connect, adder_request: MakeRequest
) -> None:
    before = _requests_of(server, "two", "OK")
    stream = connect(server.authority.issue("client")).channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
    data = [adder_request(id=str(number)).SerializeToString() for number in range(3)]
    answers = [pb.ModelStreamInferResponse.FromString(each) for each in stream(iter(data), **_bearer("first-of-two"))]
    assert [answer.infer_response.id for answer in answers] == ["0", "1", "2"]
    assert _requests_of(server, "two", "OK") == before + 3
    assert stream(iter(data), timeout=120).code() is grpc.StatusCode.UNAUTHENTICATED


@on_http2
def test_tritonclient_infers_over_grpc_and_http(server: SecureServer) -> None:
    venv = subprocess.run([ROOT / "hack" / "venv", "tritonclient"], check=True, capture_output=True, text=True)
    python = Path(venv.stdout.strip()) / "bin" / "python"
    drivers = {
        server.address: ("tritonclient_driver.py", "secure"),
        server.http: ("tritonclient_http_driver.py",),
    }
    statuses = []
    for address, (driver, *words) in drivers.items():
        command = [str(python), str(Path(__file__).with_name(driver)), *words, server.for_driver(address)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
        assert seen["ready"] is True
        assert seen["sum"] == SUM
        statuses.append(seen["refusal"]["status"])
    assert statuses == ["StatusCode.UNAUTHENTICATED", "401"]


@on_http2
def test_grpcurl_and_curl_reach_it(server: SecureServer) -> None:
    tool = subprocess.run([ROOT / "hack" / "tool", "grpcurl"], check=True, capture_output=True, text=True)
    files = ("-cacert", server.path("ca.crt"), "-cert", server.path("tls.crt"), "-key", server.path("tls.key"))
    header = "authorization: Bearer token-of-one"
    listed = subprocess.run(
        [tool.stdout.strip(), *files, "-H", header, server.address, "list"], check=True, capture_output=True, text=True
    )
    assert "inference.GRPCInferenceService" in listed.stdout
    curl = ["curl", "-sS", "--cacert", server.path("ca.crt"), "-w", "%{http_code}", "-D", server.path("headers")]
    own = ["--cert", server.path("tls.crt"), "--key", server.path("tls.key")]
    metadata = f"https://{server.http}/v2/models/adder"

    def ask(*words: str) -> str:
        return subprocess.run([*curl, *words], check=False, capture_output=True, text=True).stdout

    assert ask(*own, "-H", header, metadata).endswith("200")
    assert ask(*own, metadata).endswith("401")
    assert "www-authenticate: bearer" in Path(server.path("headers")).read_text().lower()
    assert ask(*own, metadata.removesuffix("models/adder") + "health/ready").endswith("200")
    assert ask(*own, f"{metadata}/ready").endswith("200")
    assert ask(*own, metadata.removesuffix("adder") + "ready").endswith("401")
    assert ask(metadata).endswith("000")


@on_http2
def test_the_command_line_client_reaches_it(server: SecureServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("token-of-one\n")
    program = str(Path(sys.executable).with_name("enginesmith"))
    command = [program, "infer", "adder", "--address", server.address]
    files = ["--ca", server.path("ca.crt"), "--cert", server.path("tls.crt"), "--key", server.path("tls.key")]
    done = subprocess.run([*command, *files, "--token-file", str(token)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tokens_that_change_hold_for_connections_that_are_open(
    server: SecureServer, connect: Connect, adder_request: MakeRequest
) -> None:
    client = connect(server.authority.issue("client"))

    def code(token: str) -> grpc.StatusCode:
        return client.begin("ModelInfer", adder_request(), **_bearer(token)).code()

    mount(server.folder / "tokens", {"one": "token-of-one", "three": "token-of-three", "empty": ""})
    wait_for(lambda: code("token-of-three") is grpc.StatusCode.OK)
    # Each front end looks for itself.
    wait_for(lambda: {code("first-of-two") for _ in range(8)} == {grpc.StatusCode.UNAUTHENTICATED})
    assert code("token-of-one") is grpc.StatusCode.OK
    assert _requests_of(server, "three", "OK") >= 1
    assert metrics_of(server.running)["enginesmith_tls_certificate_expiration_timestamp_seconds"] > 1e9


@pytest.mark.parametrize("way", ["http2", "grpcio"], indirect=True)
def test_clients_that_are_idle_do_not_hold_up_the_end(
    start_server: Callable[..., RunningServer], adder_key: str, adder_request: MakeRequest, tmp_path: Path
) -> None:
    authority = Authority.named("all")
    files = mount_tls(tmp_path / "tls", authority.issue())
    running = start_server({"adder": adder_key}, tls=files, http_address="127.0.0.1:0", grace_seconds=3600.0)
    context = ssl.create_default_context(cadata=authority.pem.decode())
    web = http.client.HTTPSConnection(running.http.replace("127.0.0.1", "localhost"), timeout=120, context=context)
    web.request("GET", "/v2/health/ready")
    assert web.getresponse().status == 200
    credentials = grpc.ssl_channel_credentials(authority.pem)
    with grpc.secure_channel(running.address.replace("127.0.0.1", "localhost"), credentials) as channel:
        Client(channel).infer(adder_request(), timeout=120)
        assert running.stop() == 0
    web.close()


def _requests_of(server: SecureServer, client: str, code: str) -> float:
    return metrics_of(server.running).get(f'enginesmith_client_requests_total{{client="{client}",code="{code}"}}', 0.0)
