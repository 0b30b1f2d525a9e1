"""Reads a pod's request: JSON, or the path of a file with the JSON. JSON begins with `{`, and a path does not."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from enginesmith_contract.errors import SpecError
from enginesmith_contract.record import Record

__all__ = ["read_request"]

_R = TypeVar("_R", bound=Record)


def read_request(kind: type[_R], given: str | None, variable: str) -> _R:
    """Return the request.

    Args:
        kind: Type of the record.
        given: JSON or a path; None or empty if there is neither an argument nor a variable.
        variable: Name of the variable, for messages.

    Raises:
        enginesmith_contract.errors.SpecError: `RequestMissing`, `RequestUnreadable`, `RequestInvalid`.
    """
    if not given:
        raise SpecError(
            "no request was given",
            where=variable,
            remedy=f"put a {kind.__name__} as JSON, or the path of its file, into {variable}",
            reason="RequestMissing",
        )
    inline = given.lstrip().startswith("{")
    place = variable if inline else given
    try:
        return kind.from_json(given if inline else Path(given).read_bytes())
    except OSError as error:
        raise SpecError(
            "the request cannot be read",
            where=place,
            why=error.strerror or str(error),
            reason="RequestUnreadable",
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise SpecError(
            f"the request is not a {kind.__name__} of this release",
            where=f"{place}: {field}" if field else place,
            why=str(first["msg"]),
            remedy="use the same release of the operator and of this image",
            reason="RequestInvalid",
        ) from error
