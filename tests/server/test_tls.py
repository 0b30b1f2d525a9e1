"""TLS of the transports: who gets in, a certificate that is replaced while it serves, and one that cannot be used."""

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from tests.http2.adapters import ADAPTERS
from tests.server.certificates import CLIENT_USE, Authority, Identity, mount, mount_tls
from tests.server.waiting import wait_for

from enginesmith_contract.errors import ServeError
from enginesmith_contract.serve_request import TlsFiles, TransportName
from enginesmith_runtime.server.transport.choice import open_transport
from enginesmith_runtime.server.transport.interface import Answer, Transport, UnaryMethod
from enginesmith_runtime.server.transport.limits import TransportLimits
from enginesmith_runtime.server.transport.tls import Certificates

LIMITS = TransportLimits(
    max_message_bytes=8 << 20,
    max_connection_age_seconds=None,
    grace_seconds=1.0,
    max_waiting_calls=64,
    max_streams=8,
)
each_adapter = pytest.mark.parametrize("adapter", ADAPTERS)


@pytest.fixture(scope="module")
def first() -> Authority:
    return Authority.named("first")


@pytest.fixture(scope="module")
def second() -> Authority:
    return Authority.named("second")


def _serve(adapter: str, files: TlsFiles) -> Transport:
    methods = {"/a.B/Echo": UnaryMethod(lambda data, _, reply: reply(Answer(bytes(data))))}
    return open_transport(TransportName(adapter), methods, LIMITS, certificates=Certificates(files))


def _call(address: str, trusted: Authority, own: Identity | None = None) -> grpc.StatusCode:
    certificate, key = (None, None) if own is None else (own.certificate, own.key)
    credentials = grpc.ssl_channel_credentials(trusted.pem, key, certificate)
    # A subchannel pool of its own: each call makes its own handshake.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address.replace("127.0.0.1", "localhost"), credentials, options) as channel:
        future = channel.unary_unary("/a.B/Echo").future(b"x" * 100_000, timeout=120)
        code: grpc.StatusCode = future.code()
        assert code is not grpc.StatusCode.OK or len(future.result()) == 100_000
        return code


@each_adapter
def test_a_client_that_trusts_the_certificate_gets_in_and_no_other(
    adapter: str, tmp_path: Path, first: Authority, second: Authority
) -> None:
    transport = _serve(adapter, mount_tls(tmp_path, first.issue()))
    address = transport.start("127.0.0.1:0")
    try:
        assert _call(address, first) is grpc.StatusCode.OK
        assert _call(address, second) is grpc.StatusCode.UNAVAILABLE
    finally:
        transport.stop(0.1)


@each_adapter
def test_a_new_certificate_and_a_new_authority_hold_for_the_next_connection(
    adapter: str, tmp_path: Path, first: Authority, second: Authority
) -> None:
    transport = _serve(adapter, mount_tls(tmp_path, first.issue(), client_ca=first.pem))
    address = transport.start("127.0.0.1:0")
    try:
        assert _call(address, first, first.issue()) is grpc.StatusCode.OK
        assert _call(address, first, second.issue()) is grpc.StatusCode.UNAVAILABLE
        assert _call(address, first) is grpc.StatusCode.UNAVAILABLE
        mount_tls(tmp_path, Identity(b"half written", first.issue().key), client_ca=second.pem)
        assert _call(address, first, first.issue()) is grpc.StatusCode.OK
        mount_tls(tmp_path, second.issue(days=(-2, -1)), client_ca=second.pem)
        assert _call(address, first, first.issue()) is grpc.StatusCode.OK
        mount_tls(tmp_path, second.issue(), client_ca=second.pem)
        wait_for(lambda: _call(address, second, second.issue()) is grpc.StatusCode.OK)
        assert _call(address, second, first.issue()) is grpc.StatusCode.UNAVAILABLE
    finally:
        transport.stop(0.1)


@pytest.mark.parametrize(
    ("make", "reason", "words"),
    [
        (lambda ca: {"tls.key": ca.issue().key}, "TlsUnusable", ["tls.crt", "no such file"]),
        (lambda ca: {"tls.crt": ca.issue().certificate}, "TlsUnusable", ["tls.key", "no such file"]),
        (lambda ca: _files(Identity(b"nothing", ca.issue().key)), "TlsUnusable", ["tls.crt", "no PEM"]),
        (lambda ca: _files(Identity(ca.issue().certificate, ca.issue().key)), "TlsUnusable", ["not that of the cert"]),
        (lambda ca: _files(ca.issue(password=b"secret")), "TlsUnusable", ["has a password"]),
        (lambda ca: _files(ca.issue(use=CLIENT_USE)), "TlsUnusable", ["clients refuse it", "purpose"]),
        (
            lambda ca: _files(ca.issue(days=(-9, -2))),
            "CertificateExpired",
            ["has expired", "was valid until 20", "Renew"],
        ),
        (lambda ca: _files(ca.issue(days=(2, 9))), "CertificateExpired", ["is not valid yet", "valid from 20"]),
        (
            lambda ca: _files(ca.issue("a.example", "*.b.example")),
            "CertificateNameDiffers",
            ["for a.example, *.b.example, and clients use localhost or cls.vision.svc", "serving.tls.serverName"],
        ),
        (lambda ca: _files(ca.issue(), **{"ca.crt": b"nothing"}), "TlsUnusable", ["ca.crt", "no certificate in PEM"]),
    ],
    ids=["no-cert", "no-key", "no-pem", "other-key", "password", "use", "expired", "future", "name", "client-ca"],
)
def test_what_cannot_be_used_ends_the_start_with_a_sentence(
    tmp_path: Path, first: Authority, make: Callable[[Authority], dict[str, bytes]], reason: str, words: list[str]
) -> None:
    files = make(first)
    mount(tmp_path, files)
    tls = TlsFiles(
        certificate=str(tmp_path / "tls.crt"),
        key=str(tmp_path / "tls.key"),
        client_ca=str(tmp_path / "ca.crt") if "ca.crt" in files else None,
        names=("localhost", "cls.vision.svc"),
    )
    with pytest.raises(ServeError) as caught:
        Certificates(tls)
    assert caught.value.reason == reason
    assert [part for part in words if part not in caught.value.sentence()] == []


def _files(identity: Identity, **others: bytes) -> dict[str, bytes]:
    return {"tls.crt": identity.certificate, "tls.key": identity.key, **others}


@pytest.mark.parametrize("name", ["localhost", "CLS.vision.svc", "one.b.example"])
def test_one_of_the_names_is_enough_and_a_star_stands_for_one_label(
    tmp_path: Path, first: Authority, name: str
) -> None:
    identity = first.issue("localhost", "cls.vision.svc", "*.b.example")
    Certificates(mount_tls(tmp_path, identity, names=("other", name)))
    with pytest.raises(ServeError, match="another name"):
        Certificates(mount_tls(tmp_path, identity, names=(f"x.{name}",)))
