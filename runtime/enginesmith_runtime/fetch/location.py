"""Parses the location of a model, and removes secrets from it."""

import re
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from enginesmith_contract.errors import SourceError
from enginesmith_runtime.fetch.reasons import SourceReason

__all__ = ["Scheme", "local_path", "model_name", "redact", "scheme_of"]


class Scheme(StrEnum):
    """Scheme of a model's URI. A plain path is `FILE`."""

    FILE = "file"
    HTTP = "http"
    HTTPS = "https"
    S3 = "s3"
    GS = "gs"
    OSS = "oss"
    OCI = "oci"
    HF = "hf"
    MS = "ms"


_URI: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
# Spellings of other tools that an edit distance does not find.
_ALIASES: Final = {
    "aliyun": Scheme.OSS,
    "docker": Scheme.OCI,
    "gcs": Scheme.GS,
    "huggingface": Scheme.HF,
    "minio": Scheme.S3,
    "modelscope": Scheme.MS,
    "s3a": Scheme.S3,
    "s3n": Scheme.S3,
}
_USERINFO: Final = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY: Final = re.compile(r"\?[^\s\"'#]+")


def scheme_of(uri: str) -> Scheme:
    """Return the URI's scheme.

    Raises:
        enginesmith_contract.errors.SourceError: `UnsupportedScheme` with the most similar supported scheme.
    """
    found = _URI.match(uri)
    if found is None:
        return Scheme.FILE
    name = found[1].lower()
    if name in list(Scheme):
        return Scheme(name)
    if name == "pvc":
        remedy = "mount the volume and use the model's path: pvc:// is a volume of a cluster"
    else:
        near = [_ALIASES[name]] if name in _ALIASES else get_close_matches(name, list(Scheme), n=1)
        supported = f"use a path or one of {', '.join(Scheme)}"
        remedy = f"did you mean {near[0]}://? Otherwise {supported}" if near else supported
    raise SourceError(
        f"models cannot be fetched from {name}://",
        where=redact(uri),
        remedy=remedy,
        reason=SourceReason.UNSUPPORTED_SCHEME,
    )


def local_path(uri: str, base: Path | None) -> Path:
    """Return the absolute path of a plain path or a file:// URI. `base` is the base folder of a relative path.

    Raises:
        enginesmith_contract.errors.SourceError: `UnsupportedScheme` for a file:// URI with a host.
    """
    if not uri.lower().startswith("file://"):
        return ((base or Path()) / Path(uri).expanduser()).absolute()
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise SourceError(
            "a file:// URI must not have a host",
            where=uri,
            remedy=f"write file:///{parts.netloc}{parts.path}, or the plain path without file://",
            reason=SourceReason.UNSUPPORTED_SCHEME,
        )
    return Path(unquote(parts.path))


def model_name(path: str) -> str:
    """Return the file name at the end of a URI's path as a valid file name, or "model.onnx" if it has none."""
    name = PurePosixPath(unquote(path).replace("\\", "/").replace("\0", "")).name
    return "model.onnx" if name in ("", ".", "..") else name


def redact(text: str) -> str:
    """Return a URI, or a text with URIs, without user names, passwords and query strings (signatures, tokens)."""
    return _QUERY.sub("?...", _USERINFO.sub("", text)) if "://" in text else text
