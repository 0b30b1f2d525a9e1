"""`spec.precision`: the numeric precision of the engine, as one word or as a mapping."""

from typing import Annotated, Any, Final

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from enginesmith_contract.backends import Precision
from enginesmith_operator.api.base import ApiModel, Finding, finding_error, raise_findings, refuse_unimplemented
from enginesmith_operator.api.model import ModelUri

__all__ = ["PrecisionSpec"]

_CALIBRATED: Final = frozenset({Precision.INT8, Precision.FP8})


class PrecisionSpec(ApiModel):
    """Numeric precision of the engine: one word such as `fp16`, or a mapping with these fields.

    Attributes:
        default: Precision of every layer that `keep` and `auto_keep` do not exclude.
        keep: Node names or operator types that stay in FP32. Shell patterns are allowed. Each entry must match a node.
        auto_keep: Whether nodes whose values are all below 6.1e-5 in a reference run also stay in FP32.
        calibration: URI of an .npz file with calibration inputs. Required for int8 and fp8.
    """

    default: Precision = Precision.FP32
    keep: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=256)] = ()
    auto_keep: bool = False
    calibration: ModelUri | None = None

    @model_validator(mode="before")
    @classmethod
    def _parse_short_form(cls, value: object) -> object:
        if isinstance(value, str):
            return {"default": value}
        refuse_unimplemented(value, fallback="a build whose verification fails is not repeated in another precision")
        if isinstance(value, dict) and isinstance(value.get("keep"), list):
            # After a "before" validator, strict validation accepts only a tuple.
            return value | {"keep": tuple(value["keep"])}
        if isinstance(value, int | float | list):
            words = ", ".join(precision.value for precision in Precision)
            raise finding_error(Finding(f"expected one of {words}, or a mapping with default, keep, ..."))
        return value

    @model_validator(mode="after")
    def _require_calibration(self) -> "PrecisionSpec":
        raise_findings(self._findings())
        return self

    @model_serializer(mode="wrap")
    def _serialize_short_form(self, write: SerializerFunctionWrapHandler) -> Any:  # noqa: ANN401 - a word or a mapping
        if self.model_fields_set == {"default"}:
            return self.default.value
        return write(self)

    def _findings(self) -> list[Finding]:
        found = []
        if self.default in _CALIBRATED and self.calibration is None:
            reason = (
                f"{self.default} needs calibration data: {{default: {self.default}, calibration: <URI of an .npz>}}"
            )
            found.append(Finding(reason, "fp16", ("default",)))
        return found
