"""Public keys that verify the signatures of models and engines, and the signature in a manifest."""

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from enginesmith_contract.record import Record

__all__ = ["COSIGN", "DEFAULT_SIGNATURE", "EngineSignature", "TrustedKeys", "public_key_problem"]

DEFAULT_SIGNATURE: Final = "model.sig"
"""Name of the file that OpenSSF Model Signing writes."""
COSIGN: Final = "cosign"
"""Selects the signature that cosign stored in the repository of the artifact."""

_BEGIN: Final = "-----BEGIN PUBLIC KEY-----"
_END: Final = "-----END PUBLIC KEY-----"
# Object identifiers in DER: an elliptic curve key, and the curves P-256, P-384 and P-521.
_EC_KEY: Final = bytes.fromhex("06072a8648ce3d0201")
_CURVES: Final = tuple(map(bytes.fromhex, ("06082a8648ce3d030107", "06052b81040022", "06052b81040023")))


class TrustedKeys(Record):
    """Public keys in PEM by name; a signature of one of them is enough."""

    keys: Mapping[str, str] = {}


class EngineSignature(Record):
    """Signature of the rest of a manifest.

    Attributes:
        key_id: SHA-256 of the public key in DER, 64 hexadecimal digits. It identifies the key.
        value: ECDSA signature (DER, in Base64) of the DSSE encoding of the manifest without its signature.
    """

    key_id: str
    value: str


def public_key_problem(pem: str) -> str:
    """Return the problem of a public key, or "" if its format is valid."""
    lines = pem.strip().splitlines()
    if len(lines) < len((_BEGIN, "", _END)) or lines[0].strip() != _BEGIN or lines[-1].strip() != _END:
        return f"expected a public key in PEM, which begins with {_BEGIN}"
    try:
        der = base64.b64decode("".join(line.strip() for line in lines[1:-1]), validate=True)
    except binascii.Error as error:
        return f"the public key is not Base64: {error}"
    if _EC_KEY not in der or not any(curve in der for curve in _CURVES):
        return "expected a key of the elliptic curve P-256, P-384 or P-521 (openssl ecparam -name prime256v1)"
    return ""
