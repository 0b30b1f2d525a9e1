"""Certificates for the tests of TLS: an authority, what it signs, and files that are replaced as kubelet does it."""

import datetime as dt
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from enginesmith_contract.serve_request import TlsFiles

__all__ = ["CLIENT_USE", "Authority", "Identity", "mount", "mount_tls"]

CLIENT_USE = ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Authority:
    """Signs certificates."""

    own_key: ec.EllipticCurvePrivateKey
    own: x509.Certificate

    @classmethod
    def named(cls, name: str) -> Self:
        """Return a new authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(key, _sign(name, key, None, key, is_authority=True))

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.own.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        *names: str,
        days: tuple[float, float] = (-1, 1),
        use: ObjectIdentifier | None = None,
        password: bytes | None = None,
    ) -> Identity:
        """Return a certificate for names (`localhost`), valid from and until so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        signed = _sign("it", key, self.own.subject, self.own_key, names=names or ("localhost",), days=days, use=use)
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return Identity(
            signed.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption),
        )


def mount(folder: Path, files: Mapping[str, bytes | str]) -> None:
    """Replace all files of a folder in one moment, as kubelet replaces those of a Secret."""
    folder.mkdir(exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    for name, content in files.items():
        (data / name).write_bytes(content.encode() if isinstance(content, str) else content)
    link = folder / "..data_tmp"
    link.symlink_to(data.name)
    os.replace(link, folder / "..data")  # noqa: PTH105 - over a link, not into the folder that it names
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for path in folder.iterdir():
        if path.is_symlink() and path.name not in {*files, "..data"}:
            path.unlink()


def mount_tls(
    folder: Path, identity: Identity, client_ca: bytes | None = None, names: tuple[str, ...] | None = None
) -> TlsFiles:
    """Replace the files of a Secret as cert-manager writes it."""
    files = {"tls.crt": identity.certificate, "tls.key": identity.key}
    mount(folder, files if client_ca is None else {**files, "ca.crt": client_ca})
    return TlsFiles(
        certificate=str(folder / "tls.crt"),
        key=str(folder / "tls.key"),
        client_ca=None if client_ca is None else str(folder / "ca.crt"),
        names=names,
    )


def _sign(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    names: tuple[str, ...] = (),
    days: tuple[float, float] = (-1, 1),
    use: ObjectIdentifier | None = None,
    is_authority: bool = False,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begins, ends = (dt.datetime.now(dt.UTC) + dt.timedelta(days=each) for each in days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if names:
        found = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
        builder = builder.add_extension(found, critical=False)
    if use is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
