"""`spec.precision`: the numeric precision of the engine, as one word or as a mapping."""

from itertools import pairwise
from typing import Annotated, Any, Final

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from enginesmith_contract.backends import Precision
from enginesmith_operator.api.base import (
    ApiModel,
    Finding,
    finding_error,
    raise_findings,
    with_tuples,
)
from enginesmith_operator.api.calibration import AutoKeepSpec, CalibrationSpec

__all__ = ["PrecisionSpec"]

_CALIBRATED: Final = frozenset({Precision.INT8, Precision.FP8})
_SEARCHED: Final = _CALIBRATED | {Precision.FP16}
_KEPT: Final = _SEARCHED | {Precision.BF16}
_WIDTHS: Final = {
    Precision.INT8: 8,
    Precision.FP8: 8,
    Precision.FP16: 16,
    Precision.BF16: 16,
    Precision.TF32: 19,
    Precision.FP32: 32,
}
"""Bits of a value."""


class PrecisionSpec(ApiModel):
    """Numeric precision of the engine: one word such as `fp16`, or a mapping with these fields.

    Attributes:
        default: Precision of every layer that `keep` and `auto_keep` do not exclude.
        keep: Node names or operator types that keep a higher precision: FP32 with fp16 and bf16, and FP16 with int8 and
            fp8 (FP32 for the backend onnxruntime). Shell patterns are allowed. `from:TENSOR` is every node between a
            tensor and the outputs. Each entry must match a node. Refused with fp32 and tf32.
        auto_keep: Whether nodes that must keep a higher precision are searched. With fp16, these are nodes whose values
            are all below 6.1e-5 in a reference run; with int8 and fp8, those that the answers depend on most.
        calibration: Calibration data for int8 and fp8: a URI, or a mapping.
        fallback: Precisions that are tried in this order if the model cannot be had in `default`, if an engine fails
            its verification, or if an int8 or fp8 engine is known to be slower than the fp16 engine. Each has at least
            as many bits as the one before. `keep` also holds for those with the bits of `default`, `auto_keep` and
            `calibration` for int8 and fp8.
    """

    default: Precision = Precision.FP32
    keep: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=256)] = ()
    auto_keep: AutoKeepSpec | None = None
    calibration: CalibrationSpec | None = None
    fallback: Annotated[tuple[Precision, ...], Field(max_length=5)] = ()

    @property
    def following(self) -> "PrecisionSpec | None":
        """Return what is tried after this one; None: nothing is."""
        if not self.fallback:
            return None
        default, *rest = self.fallback
        fields: dict[str, Any] = {"default": default}
        if rest:
            fields["fallback"] = tuple(rest)
        if self.keep and _WIDTHS[default] == _WIDTHS[self.default]:
            fields["keep"] = self.keep
        if default in _CALIBRATED:
            fields["calibration"] = self.calibration
            fields |= {} if self.auto_keep is None else {"auto_keep": self.auto_keep}
        return PrecisionSpec(**fields)

    @model_validator(mode="before")
    @classmethod
    def _parse_short_form(cls, value: object) -> object:
        if isinstance(value, str):
            return {"default": value}
        value = with_tuples(value)
        if isinstance(value, dict) and value.get("autoKeep") is False:
            value = {name: part for name, part in value.items() if name != "autoKeep"}
        if isinstance(value, int | float | list):
            words = ", ".join(precision.value for precision in Precision)
            raise finding_error(Finding(f"expected one of {words}, or a mapping with default, keep, ..."))
        return value

    @model_validator(mode="after")
    def _require_calibration(self) -> "PrecisionSpec":
        raise_findings(self._findings())
        return self

    @model_serializer(mode="wrap")
    def _serialize_short_form(self, write: SerializerFunctionWrapHandler) -> object:
        if self.model_fields_set == {"default"}:
            return self.default.value
        return write(self)

    def _findings(self) -> list[Finding]:
        found = []
        calibrated = self.default in _CALIBRATED
        if calibrated and self.calibration is None:
            reason = (
                f"{self.default} needs calibration data: {{default: {self.default}, calibration: <URI of a folder>}}"
            )
            found.append(Finding(reason, "fp16", ("default",)))
        if not calibrated and self.calibration is not None:
            hint = "choose int8 or fp8, or remove the field"
            found.append(Finding(f"has no effect with {self.default}", path=("calibration",), hint=hint))
        if self.keep and self.default not in _KEPT:
            hint = "choose fp16, bf16, int8 or fp8, or remove the field"
            found.append(Finding(f"has no effect with {self.default}", path=("keep",), hint=hint))
        if self.auto_keep is not None and self.default not in _SEARCHED:
            hint = "choose fp16, int8 or fp8, or remove the field"
            found.append(Finding(f"has no effect with {self.default}", path=("autoKeep",), hint=hint))
        elif self.auto_keep is not None and self.auto_keep.model_fields_set and not calibrated:
            found.append(Finding(f"expected true or false with {self.default}", "true", ("autoKeep",)))
        return found + self._findings_of_fallback()

    def _findings_of_fallback(self) -> list[Finding]:
        found = []
        tried = (self.default, *self.fallback)
        for index, (before, precision) in enumerate(pairwise(tried)):
            if precision in tried[: index + 1]:
                reason, hint = f"{precision} is tried before this entry", "remove the entry"
            elif _WIDTHS[precision] < _WIDTHS[before]:
                reason = f"{precision} has fewer bits than {before}, which is tried before it"
                hint = "name precisions with more bits, such as fp16 and then fp32"
            else:
                continue
            found.append(Finding(reason, path=("fallback", index), hint=hint))
        return found
