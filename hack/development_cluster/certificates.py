"""Keys, certificates and kubeconfig files: one authority, and one certificate for each client of the API server."""

import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from development_cluster.commands import run
from development_cluster.layout import CONTROL, Layout

__all__ = ["client_kubeconfig", "make_authority", "make_certificate", "make_signing_key"]

_DAYS = "3650"


def make_authority(layout: Layout) -> None:
    """Make the authority that every part trusts, once."""
    key, certificate = layout.certificates / "ca.key", layout.certificates / "ca.crt"
    if certificate.exists():
        return
    make_signing_key(key)
    run([
        *("openssl", "req", "-x509", "-new", "-key", key, "-out", certificate, "-days", _DAYS),
        *("-subj", "/CN=enginesmith-development", "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"),
    ])  # fmt: skip


def make_signing_key(path: Path) -> None:
    """Make a P-256 key, once."""
    if not path.exists():
        run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path])
        path.chmod(0o600)


def make_certificate(
    layout: Layout, name: str, *, user: str, group: str | None = None, hosts: Sequence[str] = ()
) -> tuple[Path, Path]:
    """Make a certificate for a client, and for a server under `hosts`, once.

    Args:
        layout: where to.
        name: of the files.
        user: what the API server calls its holder.
        group: the holder's group.
        hosts: names and addresses that a server answers under.

    Returns:
        The certificate's and the key's path.
    """
    folder = layout.certificates
    key, certificate, request = folder / f"{name}.key", folder / f"{name}.crt", folder / f"{name}.csr"
    if certificate.exists():
        return certificate, key
    make_signing_key(key)
    subject = f"/O={group}/CN={user}" if group else f"/CN={user}"
    names = [f"IP:{host}" if host.replace(".", "").isdigit() else f"DNS:{host}" for host in hosts]
    extensions = folder / f"{name}.ext"
    extensions.write_text(
        "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth,serverAuth\n"
        + (f"subjectAltName={','.join(names)}\n" if names else "")
    )
    run(["openssl", "req", "-new", "-key", key, "-out", request, "-subj", subject])
    run([
        *("openssl", "x509", "-req", "-in", request, "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key"),
        *("-CAcreateserial", "-days", _DAYS, "-extfile", extensions, "-out", certificate),
    ])  # fmt: skip
    return certificate, key


def client_kubeconfig(layout: Layout, name: str, *, user: str, group: str | None = None) -> Path:
    """Return the path of a kubeconfig for this user, made once."""
    path = layout.certificates / f"{name}.kubeconfig"
    if path.exists():
        return path
    certificate, key = make_certificate(layout, name, user=user, group=group)
    cluster = {"server": CONTROL.api_url, "certificate-authority-data": _base64(layout.certificates / "ca.crt")}
    holder = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
    context = {"cluster": "enginesmith", "user": name, "namespace": "default"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "enginesmith", "cluster": cluster}],
        "users": [{"name": name, "user": holder}],
        "contexts": [{"name": "enginesmith", "context": context}],
        "current-context": "enginesmith",
    }
    path.write_text(json.dumps(document, indent=2))
    path.chmod(0o600)
    return path


def _base64(path: Path) -> str:
    return b64encode(path.read_bytes()).decode()
