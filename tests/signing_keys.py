"""Keys that tests sign with, and signatures in the form of the OpenSSF's model signing."""

import json
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from enginesmith_runtime.signing import Signer, dsse_encoding

IN_TOTO = "application/vnd.in-toto+json"


@dataclass(frozen=True, kw_only=True)
class Key:
    """A private key in a file, and its public key in PEM."""

    path: Path
    public: str

    def sign(self, message: bytes) -> str:
        """Return the signature in Base64."""
        return Signer(self.path).sign(message)


def make_key(path: Path, curve: ec.EllipticCurve | None = None) -> Key:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return Key(path=path, public=public)


def sign_files(key: Key, files: dict[str, bytes]) -> bytes:
    """Return what `model_signing sign key` writes for a folder with these files."""
    digests = {name: sha256(content).hexdigest() for name, content in sorted(files.items())}
    whole = sha256(b"".join(map(bytes.fromhex, digests.values()))).hexdigest()
    resources = [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in digests.items()]
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model", "digest": {"sha256": whole}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": resources,
        },
    }
    return bundle(key, statement)


def bundle(key: Key, statement: object) -> bytes:
    """Return a Sigstore bundle around a statement."""
    payload = json.dumps(statement).encode()
    envelope = {
        "payload": b64encode(payload).decode(),
        "payloadType": IN_TOTO,
        "signatures": [{"sig": key.sign(dsse_encoding(IN_TOTO, payload)), "keyid": ""}],
    }
    hint = sha256(key.public.encode()).hexdigest()
    document = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": envelope,
    }
    return json.dumps(document).encode()
