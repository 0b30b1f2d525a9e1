"""Smallest and largest amount of a field, in one place for the types, the CRD and the reference page."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from enginesmith_operator.api.base import Finding, finding_error
from enginesmith_operator.api.quantities import parse_bytes, parse_duration, quantity_value

__all__ = ["Bounds", "between_bytes", "between_durations", "between_quantities"]

_Kind = Literal["duration", "number of bytes", "quantity"]
_CEL: Final[dict[str, tuple[str, str]]] = {
    "duration": ("duration(self) >= duration('{}')", "duration(self) <= duration('{}')"),
    "number of bytes": (
        "quantity(string(self)).compareTo(quantity('{}')) >= 0",
        "quantity(string(self)).compareTo(quantity('{}')) <= 0",
    ),
}


@dataclass(frozen=True)
class Bounds:
    """Annotation of an amount that lies between two others, both included.

    Attributes:
        kind: Kind of amount, which decides how amounts are parsed and compared.
        least: Smallest allowed amount, as a user writes it.
        most: Largest allowed amount, as a user writes it.
    """

    kind: _Kind
    least: str
    most: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's own signature
        """Check the amount after it is parsed."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def check(self, value: Any) -> Any:  # noqa: ANN401 - any of the three kinds of amount
        """Return `value`.

        Raises:
            pydantic_core.PydanticCustomError: it is below the smallest or above the largest amount.
        """
        amount = self._amount(value)
        if amount < self._amount(self.least):
            raise finding_error(Finding(self.sentence(), self.least))
        if amount > self._amount(self.most):
            raise finding_error(Finding(self.sentence(), self.most))
        return value

    def sentence(self) -> str:
        """Return what is expected, as a clause."""
        return f"expected a {self.kind} of at least {self.least} and at most {self.most}"

    def rule(self) -> dict[str, str]:
        """Return the CEL rule with which the API server checks the same."""
        least, most = _CEL.get(self.kind, _CEL["number of bytes"])
        return {"rule": f"{least.format(self.least)} && {most.format(self.most)}", "message": self.sentence()}

    def _amount(self, value: str | float) -> Fraction:
        match self.kind:
            case "duration":
                return Fraction(parse_duration(value))
            case "number of bytes":
                return Fraction(parse_bytes(value))
            case "quantity":
                return quantity_value(str(value))


def between_durations(least: str, most: str) -> Bounds:
    """Bound a `Duration`."""
    return Bounds("duration", least, most)


def between_bytes(least: str, most: str) -> Bounds:
    """Bound a `ByteQuantity`."""
    return Bounds("number of bytes", least, most)


def between_quantities(least: str, most: str) -> Bounds:
    """Bound a `ResourceQuantity`."""
    return Bounds("quantity", least, most)
