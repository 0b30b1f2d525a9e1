"""ECDSA signatures, which model signing, cosign and the manifests of engines share."""

import base64
import binascii
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from enginesmith_contract.errors import SpecError

__all__ = ["Signer", "dsse_encoding", "find_signer"]

# Hash functions of Sigstore by the size of the curve.
_HASHES: Final = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}


def dsse_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return the signed bytes of a payload: its "pre-authentication encoding" of DSSE version 1."""
    return f"DSSEv1 {len(payload_type.encode())} {payload_type} {len(payload)} ".encode() + payload


def find_signer(keys: Mapping[str, str], signature: str, message: bytes) -> str | None:
    """Return the name of the key that signed a message, or None.

    Args:
        keys: Public keys in PEM by name.
        signature: Signature in Base64.
        message: Signed message.

    Raises:
        enginesmith_contract.errors.SpecError: `KeyInvalid`.
    """
    try:
        value = base64.b64decode(signature, validate=True)
    except binascii.Error:
        return None
    for name, pem in sorted(keys.items()):
        key = _public_key(name, pem)
        try:
            key.verify(value, message, ECDSA(_HASHES[key.key_size]))
        except InvalidSignature:
            continue
        return name
    return None


class Signer:
    """A private key.

    Attributes:
        key_id: SHA-256 of the public key in DER, 64 hexadecimal digits.
    """

    def __init__(self, path: Path) -> None:
        """Read a key in PEM, without a passphrase.

        Raises:
            enginesmith_contract.errors.SpecError: `KeyInvalid`.
        """
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except OSError as error:
            raise _invalid(str(path), error.strerror or "it cannot be read") from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _invalid(str(path), "it is not a private key in PEM, or it has a passphrase") from error
        if not isinstance(key, EllipticCurvePrivateKey) or key.key_size not in _HASHES:
            raise _invalid(str(path), "it is not a key of the curve P-256, P-384 or P-521")
        self._key = key
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.key_id = sha256(public).hexdigest()

    def sign(self, message: bytes) -> str:
        """Return the signature in Base64."""
        return base64.b64encode(self._key.sign(message, ECDSA(_HASHES[self._key.key_size]))).decode()


def _public_key(name: str, pem: str) -> EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _invalid(name, "it is not a public key in PEM") from error
    if not isinstance(key, EllipticCurvePublicKey) or key.key_size not in _HASHES:
        raise _invalid(name, "it is not a key of the curve P-256, P-384 or P-521")
    return key


def _invalid(name: str, why: str) -> SpecError:
    return SpecError(
        "the key cannot be used",
        where=name,
        why=why,
        remedy="create one as docs/signatures.md says",
        reason="KeyInvalid",
    )
