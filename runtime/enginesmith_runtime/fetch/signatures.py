"""Verifies signatures of models: of files (OpenSSF Model Signing) or of an artifact in a registry (cosign).

    model.sig        a Sigstore bundle: DSSE envelope ── in-toto statement ── the digest of each file
    sha256-<>.sig    a tag with cosign's "simple signing" payload, which contains the digest of the artifact's manifest
    referrers        a Sigstore bundle for the artifact, as cosign 3 writes it

The administrator provides the keys. Certificates and transparency logs are not used. Digests are computed from the
fetched files and not taken from the source.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

from enginesmith_contract.errors import SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_contract.signatures import COSIGN, DEFAULT_SIGNATURE
from enginesmith_contract.store_layout import StoredFile
from enginesmith_runtime.fetch.reasons import SourceReason

__all__ = ["CosignSignature", "SignedArtifact", "check_artifact", "check_files", "no_signature", "signature_file"]

_IN_TOTO: Final = "application/vnd.in-toto+json"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_MALFORMED: Final = (ValueError, KeyError, TypeError, IndexError, AttributeError)


class CosignSignature(NamedTuple):
    """One signature of an artifact: a bundle, or a payload with its `signature` in Base64."""

    document: bytes
    signature: str | None


class SignedArtifact(NamedTuple):
    """Data of an artifact in a registry.

    Attributes:
        digest: SHA-256 of the manifest.
        layers: Digest ("sha256:...") of each file by name, from that manifest.
        signatures: Signatures in the repository.
    """

    digest: str
    layers: Mapping[str, str]
    signatures: Iterable[CosignSignature]


def signature_file(source: ModelSource) -> str | None:
    """Return the name of the file with a model's signature, or None if none is required or cosign is used."""
    if source.signers is None or source.signature == COSIGN:
        return None
    return source.signature or DEFAULT_SIGNATURE


def check_files(source: ModelSource, files: Sequence[StoredFile], document: bytes, where: str) -> str:
    """Return the name of the key that signed the files of a model.

    Args:
        source: Source with the keys. One of them must have signed.
        files: Fetched files, the ONNX file first.
        document: Contents of the signature file.
        where: Address of the signature.

    Raises:
        enginesmith_contract.errors.SourceError: `SignerUnknown`, `SignatureInvalid`, `SignatureDiffers`.
    """
    signer, statement = _open_bundle(source, document, where)
    if statement.get("predicateType") != _PREDICATE:
        raise _invalid(where, f"its predicate is {statement.get('predicateType')}, not {_PREDICATE}")
    try:
        signed = _signed_files(statement)
    except _MALFORMED as error:
        raise _invalid(where, f"its statement cannot be read: {error}") from error
    # A signature may cover a parent folder, or only the model's file, which then has the name ".".
    name = files[0].path
    prefixes = [path.removesuffix(name) for path in sorted(signed, key=len) if f"/{path}".endswith(f"/{name}")]
    if len(files) == 1 and "." in signed:
        signed, prefixes = {name: signed["."]}, [""]
    differences = [next(_differences(signed, files, prefix, where), None) for prefix in prefixes or [""]]
    if None not in differences:
        raise next(one for one in differences if one is not None)
    return signer


def check_artifact(source: ModelSource, files: Sequence[StoredFile], artifact: SignedArtifact, where: str) -> str:
    """Return the name of the key with which cosign signed the artifact of the files.

    Raises:
        enginesmith_contract.errors.SourceError: `SignatureMissing`, `SignerUnknown`, `SignatureInvalid`,
            `SignatureDiffers`.
    """
    refusal = no_signature(source, where)
    signer = None
    for one in artifact.signatures:
        try:
            signer, digest = _signer_of_artifact(source, one, where)
        except SourceError as error:
            refusal = error
            continue
        if digest == artifact.digest:
            break
        signer = None
        refusal = _differs(where, f"the signed artifact is sha256:{digest}, this one is sha256:{artifact.digest}")
    if signer is None:
        raise refusal
    layers = {name: digest.removeprefix("sha256:") for name, digest in artifact.layers.items()}
    for difference in _differences(layers, files, "", where):
        raise difference
    return signer


def no_signature(source: ModelSource, where: str) -> SourceError:
    """Return the error of a model without a signature."""
    return SourceError(
        "the model is not signed",
        where=where,
        why=f"a signature of one of the keys {_names(source)} is required",
        remedy="sign the model as docs/signatures.md says, or name its signature in spec.model.signature",
        reason=SourceReason.SIGNATURE_MISSING,
    )


def _open_bundle(source: ModelSource, document: bytes, where: str) -> tuple[str, Mapping[str, Any]]:
    from enginesmith_runtime.signing import dsse_encoding

    try:
        envelope = json.loads(document)["dsseEnvelope"]
        payload_type, payload = str(envelope["payloadType"]), base64.b64decode(envelope["payload"], validate=True)
        signatures = [str(one["sig"]) for one in envelope["signatures"]]
    except _MALFORMED as error:
        raise _invalid(where, "it is not a Sigstore bundle with a DSSE envelope") from error
    message = dsse_encoding(payload_type, payload)
    signer = _signer(source, signatures, message, where)
    try:
        statement = json.loads(payload)
    except ValueError:
        statement = None
    if payload_type != _IN_TOTO or not isinstance(statement, dict):
        raise _invalid(where, "its payload is not an in-toto statement")
    return signer, statement


def _signer(source: ModelSource, signatures: Iterable[str], message: bytes, where: str) -> str:
    from enginesmith_runtime.signing import find_signer

    for signature in signatures:
        signer = find_signer(source.signers or {}, signature, message)
        if signer is not None:
            return signer
    raise SourceError(
        "no trusted key made the signature",
        where=where,
        why=f"one of {_names(source)} must have signed it, and the signature must be unchanged",
        remedy="sign the model with a trusted key, or ask the administrator to add the public key of its signer",
        reason=SourceReason.SIGNER_UNKNOWN,
    )


def _signer_of_artifact(source: ModelSource, one: CosignSignature, where: str) -> tuple[str, str]:
    if one.signature is None:
        signer, statement = _open_bundle(source, one.document, where)
        try:
            return signer, str(statement["subject"][0]["digest"]["sha256"])
        except _MALFORMED as error:
            raise _invalid(where, "its statement has no digest") from error
    signer = _signer(source, [one.signature], one.document, where)
    try:
        found = json.loads(one.document)["critical"]["image"]["docker-manifest-digest"]
    except _MALFORMED as error:
        raise _invalid(where, "its payload has no digest") from error
    return signer, str(found).removeprefix("sha256:")


def _signed_files(statement: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of each file of a statement by its path."""
    resources = statement["predicate"]["resources"]
    others = {str(one["algorithm"]) for one in resources} - {"sha256"}
    if others:
        message = f"it has digests of {', '.join(sorted(others))}; sign with sha256 of whole files"
        raise ValueError(message)
    whole = sha256(b"".join(bytes.fromhex(one["digest"]) for one in resources)).hexdigest()
    if [subject["digest"]["sha256"] for subject in statement["subject"]] != [whole]:
        message = "its digest does not match the digests of its files"
        raise ValueError(message)
    return {str(one["name"]): str(one["digest"]) for one in resources}


def _differences(
    signed: Mapping[str, str], files: Iterable[StoredFile], prefix: str, where: str
) -> Iterator[SourceError]:
    for file in files:
        digest = signed.get(prefix + file.path)
        if digest is None:
            named = ", ".join(sorted(signed)[:4])
            yield _differs(where, f"it does not cover {file.path} (it covers {named or 'no file'})")
        elif digest != file.digest:
            yield _differs(where, f"the signed sha256 of {file.path} is {digest}, and the file has {file.digest}")


def _differs(where: str, why: str) -> SourceError:
    return SourceError(
        "the model is not the one that was signed",
        where=where,
        why=why,
        remedy="find out who changed it; if the change is intended, sign it again",
        reason=SourceReason.SIGNATURE_DIFFERS,
    )


def _invalid(where: str, why: str) -> SourceError:
    return SourceError(
        "the signature cannot be read",
        where=where,
        why=why,
        remedy="sign the model as docs/signatures.md says",
        reason=SourceReason.SIGNATURE_INVALID,
    )


def _names(source: ModelSource) -> str:
    return ", ".join(sorted(source.signers or {})) or "that are trusted (there is none)"
