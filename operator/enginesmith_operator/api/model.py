"""`spec.model`: the source of the ONNX model."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Final

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from enginesmith_operator.api.base import ApiModel, Finding, finding_error, raise_findings
from enginesmith_operator.api.bounds import between_durations
from enginesmith_operator.api.quantities import Duration
from enginesmith_operator.api.scalars import KubernetesName, Sha256

__all__ = ["MODEL_SCHEMES", "ModelSpec", "ModelUri", "SecretReference"]

MODEL_SCHEMES: Final = ("pvc", "http", "https", "s3", "gs", "oss", "oci", "hf", "ms", "file")
_LONGEST_URI: Final = 2048
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_CREDENTIAL = re.compile(r"(secret|passw|token|credential|access_?key|api_?key|^key$|^pass$)", re.IGNORECASE)


def _check_uri(value: str) -> str:
    if not value.strip() or len(value) > _LONGEST_URI or any(ord(letter) < ord(" ") for letter in value):
        raise finding_error(Finding("expected a URI or a path of at most 2048 printable characters"))
    match = _SCHEME.match(value)
    if match is None:
        return value
    scheme, rest = match["scheme"], match["rest"]
    if scheme not in MODEL_SCHEMES:
        close = get_close_matches(scheme.lower(), MODEL_SCHEMES, n=1, cutoff=0.5)
        nearest = f"{close[0]}://{rest}" if close else ""
        raise finding_error(Finding(f"expected one of the schemes {', '.join(MODEL_SCHEMES)}", nearest))
    if "@" in rest.partition("/")[0] and scheme in {"http", "https", "s3", "gs", "oss"}:
        bare = f"{scheme}://{rest.partition('@')[2]}"
        raise finding_error(
            Finding("credentials are not allowed in a URI, because everyone who can read the object sees them", bare)
        )
    if not rest.strip("/"):
        raise finding_error(Finding("the URI has nothing after the scheme", f"{scheme}://bucket/model.onnx"))
    return value


ModelUri = Annotated[
    str,
    AfterValidator(_check_uri),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": _LONGEST_URI}),
]
"""URI of a known scheme, or a path in local mode."""


class SecretReference(ApiModel):
    """Secret in the same namespace. Its keys become environment variables of the client that needs them.

    Attributes:
        name: Name of the Secret.
    """

    name: KubernetesName


class ModelSpec(ApiModel):
    """Source of the ONNX model.

    Attributes:
        uri: URI of the ONNX file: `pvc://claim/path`, `http(s)://`, `s3://`, `gs://`, `oss://`, `oci://`,
            `hf://owner/repository/file` or `ms://owner/repository/file`. A path or `file://` works only in local mode.
        sha256: Expected SHA-256 of the ONNX file, as 64 hexadecimal digits in lower case. A file with another digest is
            refused.
        secret_ref: Secret with credentials for the source.
        options: Options of the source's client, such as `endpoint` or `region`. Credentials are refused here.
        refresh_seconds: Interval at which a URI whose content may change is checked again. If omitted, the URI is
            resolved once.
    """

    uri: ModelUri
    sha256: Sha256 | None = None
    secret_ref: SecretReference | None = None
    options: Annotated[
        Mapping[Annotated[str, Field(max_length=63)], Annotated[str, Field(max_length=1024)]], Field(max_length=32)
    ] = {}
    refresh_seconds: Annotated[Duration, between_durations("1m", "8760h")] | None = Field(default=None, alias="refresh")

    @model_validator(mode="after")
    def _reject_credentials(self) -> "ModelSpec":
        raise_findings(
            Finding(
                "credentials are not allowed in the document",
                path=("options", name),
                hint="put them into a Secret and name it in spec.model.secretRef",
            )
            for name in self.options
            if _CREDENTIAL.search(name)
        )
        return self
