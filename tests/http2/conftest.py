"""Servers of the bare transport, each in a process of its own, and the programs that drive them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.http2.adapters import ADAPTERS, limits_of
from tests.http2.interop_service import methods

from enginesmith_contract.serve_request import TlsFiles
from enginesmith_runtime.server.transport.http2.transport import Http2Transport
from enginesmith_runtime.server.transport.tls import Certificates

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("transport_server.py")


@dataclass(frozen=True)
class TransportServer:
    """A server process that listens."""

    process: subprocess.Popen[str]
    address: str

    @property
    def port(self) -> int:
        """That it listens on, of 127.0.0.1."""
        return int(self.address.rpartition(":")[2])

    def memory(self) -> int:
        """Return the bytes that no file backs: a share of libraries would grow when another process ends."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        (line,) = (line for line in rollup.splitlines() if line.startswith("Anonymous:"))
        return int(line.split()[1]) << 10

    def stop(self, seconds: float = 120.0) -> int:
        """Send SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


ServeTransport = Callable[..., TransportServer]


@contextlib.contextmanager
def _serving(adapter: str, bounds: Mapping[str, Any] | None = None, **limits: Any) -> Iterator[TransportServer]:
    process = subprocess.Popen(
        [sys.executable, PROGRAM, adapter, json.dumps(limits), json.dumps(bounds or {})],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address, "the server did not start"
        yield TransportServer(process, address)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="session", params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> str:
    """Each transport's name."""
    return str(request.param)


@pytest.fixture
def serve_transport() -> Iterator[ServeTransport]:
    """Start a server of an adapter; options: its limits, and `bounds` of the one that speaks HTTP/2 itself."""
    with contextlib.ExitStack() as stack:
        yield lambda adapter, **options: stack.enter_context(_serving(adapter, **options))


@pytest.fixture(scope="module")
def serve_module_transport() -> Iterator[ServeTransport]:
    """As `serve_transport`; the servers live as long as the module's tests."""
    with contextlib.ExitStack() as stack:
        yield lambda adapter, **options: stack.enter_context(_serving(adapter, **options))


@pytest.fixture(scope="session")
def transport_server(adapter: str) -> Iterator[TransportServer]:
    """A server for the tests that leave it as it was."""
    with _serving(adapter) as server:
        yield server


@pytest.fixture(scope="session")
def http2_server() -> Iterator[TransportServer]:
    """A server of the transport that speaks HTTP/2 itself, for rules that grpcio does not keep."""
    with _serving("http2") as server:
        yield server


@dataclass(frozen=True)
class TlsServer:
    """A server of the transport that speaks HTTP/2 itself, over TLS; `certificate`: the file with its certificate."""

    port: int
    certificate: Path


@pytest.fixture(scope="session")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """A server in this process, with a certificate for localhost that signs itself."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "tls.key", folder / "tls.crt"
    options = ("-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    uses = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=digitalSignature,keyCertSign")
    command: list[str | Path] = ["openssl", "req", *options, "-keyout", key, "-out", certificate, *names, *uses]
    subprocess.run(command, check=True, capture_output=True)
    certificates = Certificates(TlsFiles(certificate=str(certificate), key=str(key)))
    transport = Http2Transport(methods(), limits_of(), certificates=certificates)
    address = transport.start("127.0.0.1:0")
    yield TlsServer(int(address.rpartition(":")[2]), certificate)
    transport.stop(0.0)


def _tool(name: str) -> Path:
    run = subprocess.run([ROOT / "hack/tool", name], check=True, capture_output=True, text=True)
    return Path(run.stdout.strip())


@pytest.fixture(scope="session")
def h2spec() -> Path:
    return _tool("h2spec")


@pytest.fixture(scope="session")
def interop_client() -> Path:
    return _tool("grpc-interop-client")


@pytest.fixture(scope="session")
def grpc_load() -> Path:
    return _tool("grpc-load")
