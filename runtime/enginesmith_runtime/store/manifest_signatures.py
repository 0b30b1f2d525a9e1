"""Signatures in the manifests of engines.

ENGINESMITH_ENGINE_KEYS has the public keys, ENGINESMITH_SIGNING_KEY the path of the private one. Without public keys
any manifest is accepted. The signature covers the document without its `signature` in the canonical form of records. It
does not depend on the fields that a release knows, so it is valid for every release.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from enginesmith_contract.environment import ENGINE_KEYS, SIGNING_KEY
from enginesmith_contract.errors import SpecError
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.signatures import EngineSignature, TrustedKeys

__all__ = ["require_signing_key", "sign_manifest", "why_untrusted"]

_TYPE: Final = "application/vnd.enginesmith.manifest.v1+json"


def require_signing_key(variables: Mapping[str, str] | None = None) -> None:
    """Refuse a build whose engine would not be accepted, before the build takes minutes.

    Raises:
        SpecError: `KeyInvalid`.
    """
    variables = os.environ if variables is None else variables
    if not variables.get(ENGINE_KEYS) or variables.get(SIGNING_KEY):
        return
    raise SpecError(
        "the store accepts only signed engines, and there is no key to sign with",
        where=SIGNING_KEY,
        why=f"{ENGINE_KEYS} is set",
        remedy="ask the administrator to set signatures.engineSecret",
        reason="KeyInvalid",
    )


def why_untrusted(document: bytes, key: str) -> str:
    """Return why a pointer's document is not accepted as the manifest of the engine `key`, or "" if it is."""
    text = os.environ.get(ENGINE_KEYS)
    if not text:
        return ""
    from enginesmith_runtime.signing import find_signer

    keys = TrustedKeys.from_json(text).keys
    try:
        found = json.loads(document)
        signature = EngineSignature.model_validate(found.pop("signature"))
    except KeyError:
        return f"its manifest is not signed, and one of the keys {', '.join(sorted(keys))} must have signed it"
    except (ValueError, ValidationError, AttributeError, TypeError):
        return "its manifest or the signature cannot be read"
    if find_signer(keys, signature.value, _message(found)) is None:
        named = ", ".join(sorted(keys))
        return f"none of the keys {named} signed its manifest as it is (key {signature.key_id[:12]} is named)"
    try:
        inputs = EngineKeyInputs.from_json(json.dumps(found["keyInputs"]).encode())
    except (KeyError, ValidationError):
        return ""  # its reader reports the error
    return "" if engine_key(inputs) == key else "its manifest is of another engine"


def sign_manifest(manifest: Manifest) -> Manifest:
    """Return the manifest with its signature, if this process has a key.

    Raises:
        SpecError: `KeyInvalid`.
    """
    path = os.environ.get(SIGNING_KEY)
    if not path:
        return manifest
    from enginesmith_runtime.signing import Signer

    signer = Signer(Path(path))
    unsigned = manifest.model_copy(update={"signature": None})
    value = signer.sign(_message(json.loads(unsigned.to_json())))
    return manifest.model_copy(update={"signature": EngineSignature(key_id=signer.key_id, value=value)})


def _message(document: object) -> bytes:
    from enginesmith_runtime.signing import dsse_encoding

    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return dsse_encoding(_TYPE, text.encode())
