"""Strings with a grammar, each with the error message for an invalid value."""

import re
from collections.abc import Callable
from typing import Annotated, Final

from pydantic import AfterValidator, Field, WithJsonSchema

from enginesmith_operator.api.base import Finding, finding_error

__all__ = [
    "BucketName",
    "ComputeCapability",
    "GpuProduct",
    "Identifier",
    "KubernetesName",
    "MetricImage",
    "MigProfile",
    "Name",
    "PriorityClassName",
    "Sha256",
    "Text",
]

_NAME: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_SUBDOMAIN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_IDENTIFIER: Final = r"^[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$"
_SHA256: Final = r"^[0-9a-f]{64}$"
_BUCKET: Final = r"^[A-Za-z0-9][-A-Za-z0-9._:]*$"
_COMPUTE_CAPABILITY: Final = r"^[1-9][0-9]?\.[0-9]$"
_PRODUCT: Final = r"^[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$"
_MIG_PROFILE: Final = r"^([1-7]c\.)?[1-7]g\.[0-9]{1,3}gb([+.](me|gfx|me\.all)|-me)?$"
_PINNED_IMAGE: Final = r"^[A-Za-z0-9][-A-Za-z0-9._:/]*@sha256:[0-9a-f]{64}$"
_LONGEST_IMAGE: Final = 512
_LONGEST_BUCKET: Final = 255
_LONGEST_LABEL: Final = 63
_LONGEST_SUBDOMAIN: Final = 253


def _matching(pattern: str, reason: str, nearest: Callable[[str], str], longest: int) -> AfterValidator:
    compiled = re.compile(pattern.removesuffix("$"), re.ASCII)

    def check(value: str) -> str:
        if len(value) <= longest and compiled.fullmatch(value):
            return value
        suggestion = nearest(value[: 4 * longest])[:longest]
        raise finding_error(Finding(reason, suggestion if compiled.fullmatch(suggestion) else ""))

    return AfterValidator(check)


def _schema(pattern: str, longest: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "minLength": 1, "maxLength": longest})


def _to_name(text: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", text.lower())[:_LONGEST_LABEL].strip("-")
    return words if words[:1].isalpha() or not words else f"e-{words}"[:_LONGEST_LABEL].strip("-")


def _to_subdomain(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def _to_identifier(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-._")


def _to_bucket(text: str) -> str:
    return text.strip().removeprefix("s3://").partition("/")[0]


def _to_sha256(text: str) -> str:
    return text.strip().lower().removeprefix("sha256:")


def _to_compute_capability(text: str) -> str:
    digits = re.sub(r"[^0-9.]", "", text)
    return digits if "." in digits else f"{digits[:-1]}.{digits[-1:]}"


def _to_mig_profile(text: str) -> str:
    return re.sub(r"^(nvidia\.com/)?mig-", "", text.strip().lower()).replace(".gb", "gb")


Name = Annotated[
    str,
    _matching(
        _NAME,
        "expected 1 to 63 of a-z, 0-9 and '-', starting with a letter (it names Services)",
        _to_name,
        _LONGEST_LABEL,
    ),
    _schema(_NAME, _LONGEST_LABEL),
]
"""DNS label (RFC 1035)."""

KubernetesName = Annotated[
    str,
    _matching(
        _SUBDOMAIN,
        "expected the name of a Kubernetes object (a-z, 0-9, '-' and '.')",
        _to_subdomain,
        _LONGEST_SUBDOMAIN,
    ),
    _schema(_SUBDOMAIN, _LONGEST_SUBDOMAIN),
]
"""Name of another Kubernetes object (DNS subdomain, RFC 1123)."""


def _reject_system_class(name: str) -> str:
    if name.startswith("system-"):
        reason = f"{name} is for the cluster's own pods, which it lets take the place of all others"
        raise finding_error(Finding(reason, hint="name another PriorityClass, or remove the field"))
    return name


PriorityClassName = Annotated[KubernetesName, AfterValidator(_reject_system_class)]
"""Name of a PriorityClass that is not one of Kubernetes' own."""

Identifier = Annotated[
    str,
    _matching(_IDENTIFIER, "expected 1 to 63 of A-Z, a-z, 0-9, '-', '_' and '.'", _to_identifier, _LONGEST_LABEL),
    _schema(_IDENTIFIER, _LONGEST_LABEL),
]
"""Name that is not the name of a Kubernetes object."""

BucketName = Annotated[
    str,
    _matching(
        _BUCKET, "expected the name of a bucket alone; a folder of it belongs in prefix", _to_bucket, _LONGEST_BUCKET
    ),
    _schema(_BUCKET, _LONGEST_BUCKET),
]
"""Name of a bucket, or the ARN of an access point with `:`; it names no folder."""

Sha256 = Annotated[
    str,
    _matching(_SHA256, "expected 64 hexadecimal digits in lower case (what `sha256sum` prints)", _to_sha256, 64),
    _schema(_SHA256, 64),
]

ComputeCapability = Annotated[
    str,
    _matching(_COMPUTE_CAPABILITY, 'expected major.minor in quotes, such as "8.9"', _to_compute_capability, 4),
    _schema(_COMPUTE_CAPABILITY, 4),
]

GpuProduct = Annotated[
    str,
    _matching(
        _PRODUCT, "expected a GPU product as in the node label nvidia.com/gpu.product", _to_identifier, _LONGEST_LABEL
    ),
    _schema(_PRODUCT, _LONGEST_LABEL),
]

MigProfile = Annotated[
    str,
    _matching(_MIG_PROFILE, "expected a MIG profile such as 1g.10gb or 3g.40gb", _to_mig_profile, 32),
    _schema(_MIG_PROFILE, 32),
]

Text = Annotated[str, Field(min_length=1, max_length=2048)]
"""String that is not empty."""

MetricImage = Annotated[
    str,
    _matching(
        _PINNED_IMAGE,
        "expected an image with its digest, such as registry.example/metric@sha256:...",
        str.strip,
        _LONGEST_IMAGE,
    ),
    _schema(_PINNED_IMAGE, _LONGEST_IMAGE),
]
"""Image that is pinned by digest."""
