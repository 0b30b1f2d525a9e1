"""TLS of a listener, with files that may be replaced while it serves."""

import logging
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from enginesmith_contract.errors import ServeError
from enginesmith_contract.serve_request import TlsFiles
from enginesmith_runtime.server.transport.file_stamps import Stamp, stamp

__all__ = ["GRPC", "HTTP", "Certificates", "PemFiles"]

_log = logging.getLogger(__name__)

GRPC: Final = "h2"
HTTP: Final = "http/1.1"
"""Protocols as ALPN names them."""

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: those that RFC 9113 does not forbid."""

_NO_CHECK_TIME: Final = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME: an expired certificate is read as well, and refused with its date."""

_TURNS: Final = 4
"""Of a handshake in memory; more than any version needs."""

_REMEDY: Final = (
    "give PEM files of a certificate with its chain, its key, and the authority of the clients where they need "
    "certificates; in a cluster, the Secrets of spec.serving.tls have them as tls.crt, tls.key and ca.crt"
)


class PemFiles(NamedTuple):
    """The contents of the files."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


class Certificates:
    """The certificate of a server and the authority of its clients. Safe from any thread.

    Files that changed are read at the next handshake. Files that cannot be used change nothing: a rotation may be half
    done, and its end changes them again.

    Attributes:
        files: that are read.
        context: for the listener.
        expires_at: when the certificate that is used expires, in seconds since the epoch.

    Raises:
        ServeError: a file cannot be used, the certificate is not valid now, or it is not for a name of the server.
    """

    def __init__(self, files: TlsFiles, protocol: str = GRPC) -> None:
        self.files = files
        self._protocol = protocol
        self._state = _read_state(files)
        self._current, self.expires_at = _load(files, protocol)
        self.context = self._current
        self.context.sni_callback = self._choose

    def reload(self) -> bool:
        """Read the files again if they have changed; returns whether others are used now."""
        state = _read_state(self.files)
        if state == self._state:
            return False
        self._state = state
        try:
            self._current, self.expires_at = _load(self.files, self._protocol)
        except ServeError as error:
            _log.warning("the new certificate is not used, the one before stays: %s", error)
            return False
        _log.info("the certificate was read again: %s", self.files.certificate)
        return True

    def read(self) -> PemFiles:
        """Return the files as they are, for a library that makes a context of its own."""
        ca = self.files.client_ca
        return PemFiles(
            Path(self.files.certificate).read_bytes(),
            Path(self.files.key).read_bytes(),
            None if ca is None else Path(ca).read_bytes(),
        )

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        self.reload()
        connection.context = self._current


def _load(files: TlsFiles, protocol: str) -> tuple[ssl.SSLContext, float]:
    """Return a context, and when its certificate expires."""
    for path in (files.certificate, files.key, files.client_ca):
        if path is not None and not Path(path).is_file():
            raise _unusable(path, "there is no such file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols([protocol])
    # A resumed session would skip the check of the client's certificate against an authority that was replaced.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        # Without a password OpenSSL would ask for one at the terminal.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (OSError, ssl.SSLError) as error:
        raise _unusable(files.certificate, _explain(error)) from error
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(files.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise _unusable(files.client_ca, "it holds no certificate in PEM") from error
    return context, _check(context, files)


def _check(context: ssl.SSLContext, files: TlsFiles) -> float:
    """Return when the certificate expires.

    Raises:
        ServeError: clients would refuse it.
    """
    found = _presented(context, files)
    begins, ends = (ssl.cert_time_to_seconds(found[name]) for name in ("notBefore", "notAfter"))
    if not begins <= time.time() < ends:
        word, moment = ("has expired", ends) if time.time() >= ends else ("is not valid yet", begins)
        raise ServeError(
            f"the certificate {word}",
            where=files.certificate,
            why=f"it {'was valid until' if moment is ends else 'is valid from'} {_date(moment)}",
            remedy="renew it, and replace the file or the Secret; the server reads it again",
            reason="CertificateExpired",
        )
    names = [value for kind, value in found.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}]
    wanted = files.names or ()
    if wanted and not any(_matches(pattern, name) for pattern in names for name in wanted):
        raise ServeError(
            "the certificate is for another name",
            where=files.certificate,
            why=f"it is for {', '.join(names) or 'no name'}, and clients use {' or '.join(wanted)}",
            remedy="have one issued for that name (subjectAltName), or set spec.serving.tls.serverName to the name "
            "that clients use",
            reason="CertificateNameDiffers",
        )
    return ends


def _presented(server: ssl.SSLContext, files: TlsFiles) -> Mapping[str, Any]:
    """Return the certificate as a client reads it, by a handshake in memory."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    client.load_verify_locations(files.certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(_TURNS):
            with suppress(ssl.SSLWantReadError):
                asking.do_handshake()
                return asking.getpeercert() or {}
            with suppress(ssl.SSLWantReadError):
                answering.do_handshake()
    except ssl.SSLCertVerificationError as error:
        raise _unusable(files.certificate, f"clients refuse it: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise _unusable(files.certificate, _explain(error)) from error
    raise _unusable(files.certificate, "no client can read it")


def _matches(pattern: str, name: str) -> bool:
    """Whether a name of a certificate is that of a server; a star stands for the first label."""
    pattern, name = pattern.casefold(), name.casefold()
    return pattern == name or (pattern.startswith("*.") and name.partition(".")[2] == pattern[2:])


def _explain(error: OSError) -> str:
    """Return what is wrong with the files, for the errors of OpenSSL that have a common cause."""
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    return "the certificate or the key is no PEM, or the key has a password" if reason is None else str(reason)


def _unusable(where: str, why: str) -> ServeError:
    return ServeError("cannot serve TLS", where=where, why=why, remedy=_REMEDY, reason="TlsUnusable")


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _read_state(files: TlsFiles) -> tuple[Stamp | None, ...]:
    return tuple(stamp(Path(path)) for path in (files.certificate, files.key, files.client_ca) if path is not None)
