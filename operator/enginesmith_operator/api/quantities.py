"""Amounts in the notation of Kubernetes and Go, as numbers that keep their original spelling.

`2Gi` is `2147483648` in Python and `2Gi` again when the document is written: a user's file survives a round trip, and
the code works with bytes and seconds only.

Grammar of byte quantities: Kubernetes API conventions, "Quantity". Grammar of durations: Go, `time.ParseDuration`.
"""

import re
from decimal import Decimal
from fractions import Fraction
from math import ceil
from operator import itemgetter
from typing import Annotated, Final, Self

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from enginesmith_operator.api.base import Finding, finding_error

__all__ = [
    "BYTES_PATTERN",
    "DURATION_PATTERN",
    "QUANTITY_PATTERN",
    "ByteQuantity",
    "Duration",
    "ResourceQuantity",
    "SpelledBytes",
    "SpelledSeconds",
    "parse_bytes",
    "parse_duration",
    "quantity_value",
    "spell_bytes",
    "spell_duration",
    "spell_quantity",
    "spell_resource",
]

_BINARY: Final = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}
_DECIMAL: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_SCALES: Final = _BINARY | _DECIMAL
_SMALL: Final = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000)}
_MAX_BYTES: Final = (1 << 63) - 1

BYTES_PATTERN: Final = r"^([0-9]{1,19}(\.[0-9]{0,9})?|\.[0-9]{1,9})([KMGTPE]i|[kMGTPE]|[eE][0-9]{1,2})?$"
QUANTITY_PATTERN: Final = r"^([0-9]{1,19}(\.[0-9]{0,9})?|\.[0-9]{1,9})([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$"
_BYTES = re.compile(r"(?P<number>[0-9]{1,19}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(?P<suffix>.*)", re.ASCII)
_BYTES_WHOLE = re.compile(BYTES_PATTERN, re.ASCII)
_QUANTITY_WHOLE = re.compile(QUANTITY_PATTERN, re.ASCII)

_UNITS: Final = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "μs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
# The CRD's pattern has no micro sign: people type `us`, and every tool can show ASCII.
DURATION_PATTERN: Final = r"^(0|(([0-9]{1,15}(\.[0-9]{0,9})?|\.[0-9]{1,9})(ns|us|ms|s|m|h)){1,6})$"
_DURATION_PART = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(?P<unit>ns|us|µs|μs|ms|s|m|h)")
_MAX_SECONDS: Final = (1 << 63) / 1e9
_LONGEST: Final = 64


class SpelledBytes(int):
    """Number of bytes, with the user's spelling (empty if it was a plain number)."""

    text: str

    def __new__(cls, value: int, text: str = "") -> Self:
        """Return `value` with its spelling."""
        self = super().__new__(cls, value)
        self.text = text
        return self


class SpelledSeconds(float):
    """Number of seconds, with the user's spelling (empty if it was a plain number)."""

    text: str

    def __new__(cls, value: float, text: str = "") -> Self:
        """Return `value` with its spelling."""
        self = super().__new__(cls, value)
        self.text = text
        return self


def parse_bytes(value: object) -> SpelledBytes:
    """Return a byte quantity (`2Gi`, `1.5G`, `1e9`, 1073741824) as a number of bytes, rounded up as Kubernetes does.

    Raises:
        pydantic_core.PydanticCustomError: it is not a byte quantity, is negative, or is larger than 2^63 - 1 bytes.
    """
    if isinstance(value, SpelledBytes):
        return value
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise finding_error(Finding(_BYTES_WANTED, _rounded(value)))
    if isinstance(value, int):
        return SpelledBytes(_within_bytes(Fraction(value)))
    if len(value) > _LONGEST or not _BYTES_WHOLE.fullmatch(value):
        raise finding_error(Finding(_BYTES_WANTED, _nearest_bytes(value)))
    match = _BYTES.fullmatch(value)
    assert match is not None, value  # noqa: S101 - the whole pattern matched, and this is its first half
    number, suffix = Fraction(Decimal(match["number"])), match["suffix"]
    scale = _SCALES[suffix] if suffix in _SCALES else 10 ** int(suffix[1:])
    return SpelledBytes(_within_bytes(number * scale), value)


def parse_duration(value: object) -> SpelledSeconds:
    """Return a duration (`500us`, `1h30m`, `0`) as seconds; a float from Python code is seconds already.

    Raises:
        pydantic_core.PydanticCustomError: it is not a duration, is negative, or is longer than 292 years (Go's limit).
    """
    if isinstance(value, SpelledSeconds):
        return value
    if isinstance(value, float) and 0 <= value < _MAX_SECONDS:
        return SpelledSeconds(value)
    if isinstance(value, int) and not isinstance(value, bool) and value == 0:
        return SpelledSeconds(0.0, "0")
    if not isinstance(value, str):
        raise finding_error(Finding(_DURATION_WANTED, f"{value}s" if _is_plain_number(value) else ""))
    text = value[: _LONGEST + 1]
    total, position = Fraction(0), 0
    for match in _DURATION_PART.finditer(text):
        if match.start() != position:
            break
        total, position = total + Fraction(Decimal(match["number"])) * _UNITS[match["unit"]], match.end()
    if text == "0":
        return SpelledSeconds(0.0, text)
    if not text or position != len(text) or position > _LONGEST:
        raise finding_error(Finding(_DURATION_WANTED, _nearest_duration(text)))
    if total > _MAX_SECONDS:
        raise finding_error(Finding("a duration must be at most 292 years", "24h"))
    return SpelledSeconds(float(total), text)


def spell_bytes(value: int) -> int | str:
    """Return `value` as the user wrote it, or in the largest binary unit that divides it, or as a number."""
    if isinstance(value, SpelledBytes) and value.text:
        return value.text
    for suffix, scale in reversed(_BINARY.items()):
        if value and value % scale == 0:
            return f"{value // scale}{suffix}"
    return int(value)


def spell_duration(value: float) -> str:
    """Return `value` seconds as the user wrote it, or in the largest unit that divides it."""
    if isinstance(value, SpelledSeconds) and value.text:
        return value.text
    nanoseconds = round(Fraction(value) * 10**9)
    for unit in ("h", "m", "s", "ms", "us"):
        scale = int(_UNITS[unit] * 10**9)
        if nanoseconds and nanoseconds % scale == 0:
            return f"{nanoseconds // scale}{unit}"
    return f"{nanoseconds}ns" if nanoseconds else "0s"


def quantity_value(text: str) -> Fraction:
    """Return the amount of a Kubernetes quantity, rounded up to 1n as the API server does.

    Raises:
        ValueError: it is not a quantity.
    """
    match = _BYTES.fullmatch(text) if _QUANTITY_WHOLE.fullmatch(text) else None
    if match is None:
        raise ValueError(f"{text!r} is not a Kubernetes quantity")
    suffix = match["suffix"]
    scale = _SMALL.get(suffix) or _SCALES.get(suffix)
    amount = Fraction(Decimal(match["number"])) * (Fraction(10) ** int(suffix[1:]) if scale is None else scale)
    return Fraction(ceil(amount / _SMALL["n"])) * _SMALL["n"]


def spell_quantity(value: str | int) -> str:
    """Return the canonical spelling of a Kubernetes quantity: `0.1` and `100m` both become `100m`.

    The API server keeps this spelling, so another spelling of the same amount neither updates an object nor replaces
    pods.

    Raises:
        ValueError: it is not a quantity.
    """
    return _spell(quantity_value(str(value)))


def spell_resource(value: str | int) -> str:
    """Return the one spelling of an amount of a container's resources, which the API server rounds up to 1m.

    Raises:
        ValueError: it is no quantity.
    """
    return _spell(Fraction(ceil(quantity_value(str(value)) / _SMALL["m"])) * _SMALL["m"])


def _spell(amount: Fraction) -> str:
    if amount.denominator > 1:
        suffix = next(suffix for suffix in ("m", "u", "n") if (amount / _SMALL[suffix]).denominator == 1)
        return f"{amount / _SMALL[suffix]}{suffix}"
    whole = amount.numerator
    scales = _BINARY if whole % 1024 == 0 and whole % 1000 else _DECIMAL
    suffix, scale = max(((name, size) for name, size in scales.items() if whole % size == 0), key=itemgetter(1))
    return f"{whole // scale}{suffix}" if whole else "0"


def _parse_resource(value: object) -> str | int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_BYTES:
        return value
    if isinstance(value, str) and _QUANTITY_WHOLE.fullmatch(value):
        return value
    nearest = f'"{value}"' if isinstance(value, float) and value >= 0 else ""
    raise finding_error(Finding("expected a Kubernetes quantity such as 500m, 2 or 4Gi", nearest))


_BYTES_WANTED: Final = "expected a number of bytes such as 512Mi, 2Gi, 1.5G or 1073741824"
_DURATION_WANTED: Final = "expected a duration with its unit, such as 500us, 5s, 30m or 1h30m"


def _within_bytes(amount: Fraction) -> int:
    if amount < 0:
        raise finding_error(Finding("a number of bytes must not be negative", "0"))
    if amount > _MAX_BYTES:
        raise finding_error(Finding("a number of bytes must be at most 2^63 - 1", "8191Pi"))
    return -(-amount.numerator // amount.denominator)


def _is_plain_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _rounded(value: object) -> str:
    return str(round(value)) if isinstance(value, float) and 0 <= value < _MAX_BYTES else ""


def _nearest_bytes(text: str) -> str:
    """Guess what `2GB`, `2 GiB`, `2gi` or `512m` was meant to be."""
    match = _BYTES.fullmatch(text.strip().replace(" ", "").replace(",", "")[:_LONGEST])
    if match is None or not match["suffix"]:
        return match["number"] if match is not None else ""
    unit = match["suffix"].lower().removesuffix("ytes").removesuffix("yte").removesuffix("b")
    for suffix in _SCALES:
        if suffix.lower() == unit:
            return f"{match['number']}{suffix}"
    return match["number"] if not unit else ""


_SPOKEN: Final = {
    "sec": "s",
    "secs": "s",
    "second": "s",
    "seconds": "s",
    "min": "m",
    "mins": "m",
    "minute": "m",
    "minutes": "m",
    "hr": "h",
    "hrs": "h",
    "hour": "h",
    "hours": "h",
    "msec": "ms",
    "usec": "us",
    "millis": "ms",
    "micros": "us",
}  # fmt: skip - a table reads better in columns


def _nearest_duration(text: str) -> str:
    """Guess what `30`, `5 seconds`, `1d` or `30M` was meant to be."""
    match = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([A-Za-z]{0,12})\s*", text)
    if match is None:
        return ""
    number, unit = match[1], match[2].lower()
    if unit in {"d", "day", "days"} and "." not in number:
        return f"{int(number) * 24}h"
    known = _SPOKEN.get(unit, unit or "s")
    return f"{number}{known}" if known in _UNITS else ""


ByteQuantity = Annotated[
    int,
    PlainValidator(parse_bytes),
    PlainSerializer(spell_bytes),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": BYTES_PATTERN, "maxLength": 32}),
]
"""Number of bytes: an `int` in Python, `2Gi` in YAML."""

Duration = Annotated[
    float,
    PlainValidator(parse_duration),
    PlainSerializer(spell_duration),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "maxLength": 64}),
]
"""Number of seconds: a `float` in Python, `30m` in YAML."""

ResourceQuantity = Annotated[
    str | int,
    PlainValidator(_parse_resource),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": QUANTITY_PATTERN, "maxLength": 32}),
]
"""Amount of a Kubernetes resource, kept as written (`500m`, `2`, `4Gi`)."""
