"""`spec.model`: the source of the ONNX model."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Annotated, Final

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from enginesmith_contract.preprocess import PixelLayout
from enginesmith_contract.signatures import COSIGN
from enginesmith_operator.api.base import ApiModel, Finding, finding_error, raise_findings
from enginesmith_operator.api.bounds import between_durations
from enginesmith_operator.api.quantities import Duration
from enginesmith_operator.api.scalars import KubernetesName, Sha256

__all__ = ["MODEL_SCHEMES", "ModelSpec", "ModelUri", "PreprocessSpec", "SecretReference"]

MODEL_SCHEMES: Final = ("pvc", "http", "https", "s3", "gs", "oss", "oci", "hf", "ms", "file")
_LONGEST_URI: Final = 2048
_Finite = Annotated[float, Field(ge=-1e6, le=1e6)]
_Positive = Annotated[float, Field(gt=0, le=1e6)]
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
        raise finding_error(Finding("the URI is empty after the scheme", f"{scheme}://bucket/model.onnx"))
    return value


ModelUri = Annotated[
    str,
    AfterValidator(_check_uri),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": _LONGEST_URI}),
]
"""URI of a known scheme, or a path in local mode."""


def _check_signature(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "://" in value or not path.parts:
        raise finding_error(Finding("expected a path from the model's folder that stays inside it", "model.sig"))
    return value


SignaturePath = Annotated[
    str,
    AfterValidator(_check_signature),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 512}),
]
"""File with a model's signature, or `cosign`."""


class SecretReference(ApiModel):
    """Secret in the same namespace. Its keys become environment variables of the client that needs them.

    Attributes:
        name: Name of the Secret.
    """

    name: KubernetesName


_Channels = Annotated[tuple[_Finite, ...], Field(min_length=1, max_length=64)]
_Positives = Annotated[tuple[_Positive, ...], Field(min_length=1, max_length=64)]


class PreprocessSpec(ApiModel):
    """Normalisation of one image input inside the engine. Clients send pixels of shape [n, h, w, c] in place of floats.

    The model then reads (pixels * scale - mean) / std in the shape [n, c, h, w].

    Attributes:
        input: Name of the model's image input: a float tensor of shape [n, c, h, w].
        source: Datatype and order of dimensions of the pixels. `uint8-nhwc` is UINT8 of shape [n, h, w, c], with values
            0 to 255.
        mean: Mean of each channel, in the unit of the scaled pixels and in the model's order of channels.
        std: Standard deviation of each channel, in the unit of the scaled pixels and in the model's order of channels.
        scale: Factor of the pixels. If omitted, 1/255: `mean` and `std` are then those of pixels in [0, 1]. With 1,
            they are those of pixels in [0, 255].
    """

    input: Annotated[str, Field(min_length=1, max_length=256)]
    source: PixelLayout = Field(alias="from")
    mean: _Channels
    std: _Positives
    scale: _Positive | None = None

    @model_validator(mode="after")
    def _require_one_length(self) -> "PreprocessSpec":
        if len(self.mean) != len(self.std):
            reason = f"mean has {len(self.mean)} values and std has {len(self.std)}: both need one for each channel"
            raise finding_error(Finding(reason, path=("std",)))
        return self


def _unique_inputs(entries: tuple[PreprocessSpec, ...]) -> tuple[PreprocessSpec, ...]:
    raise_findings(
        Finding("an earlier entry has the same input", path=(index, "input"), hint="remove one of the two entries")
        for index, entry in enumerate(entries)
        if any(other.input == entry.input for other in entries[:index])
    )
    return entries


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
        signature: File with the signature of the model, as a path from the model's folder (`model.sig`), or `cosign`
            for an `oci://` artifact that cosign signed. If set, one of the keys that the administrator trusts must have
            signed the model. If omitted, signatures are not looked for.
        preprocess: Normalisation of image inputs inside the engine, one entry for each input. Profiles and
            `verification.inputs` then describe the pixels.
    """

    uri: ModelUri
    sha256: Sha256 | None = None
    secret_ref: SecretReference | None = None
    options: Annotated[
        Mapping[Annotated[str, Field(max_length=63)], Annotated[str, Field(max_length=1024)]], Field(max_length=32)
    ] = {}
    refresh_seconds: Annotated[Duration, between_durations("1m", "8760h")] | None = Field(default=None, alias="refresh")
    signature: SignaturePath | None = None
    preprocess: Annotated[tuple[PreprocessSpec, ...], Field(max_length=16), AfterValidator(_unique_inputs)] = ()

    @model_validator(mode="after")
    def _require_registry(self) -> "ModelSpec":
        if self.signature == COSIGN and not self.uri.startswith("oci://"):
            reason = "cosign signs artifacts in registries (oci://)"
            raise finding_error(Finding(reason, "model.sig", path=("signature",)))
        return self

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
