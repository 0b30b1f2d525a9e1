"""The base of every type that a user writes.

Fields have two names: camelCase in YAML, snake_case with the unit at the end in Python (`workspace` and
`workspace_bytes`). Loading a document accepts the first only; Python code uses the second. Rules
that span several values (`min <= opt`, unique names) are checked by validators that raise `finding_error`, so that
every error has the path of the field to edit, whichever model checks it.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

__all__ = ["FINDING", "ApiModel", "Finding", "finding_error", "raise_findings", "with_tuples"]

FINDING: Final = "enginesmith_finding"
"""Error type that marks an error whose context carries findings."""


class ApiModel(BaseModel):
    """Frozen part of a document that refuses unknown fields."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        allow_inf_nan=False,
    )


class Finding(NamedTuple):
    """One thing that is wrong in a value.

    Attributes:
        reason: Clause that says what is expected.
        nearest: Valid value as the user would write it; empty if there is none.
        path: Path from the checked value to the wrong field, in YAML's spelling.
        hint: Sentence that says what to do, if a value alone does not say it.
    """

    reason: str
    nearest: str = ""
    path: tuple[str | int, ...] = ()
    hint: str = ""


def finding_error(*findings: Finding) -> PydanticCustomError:
    """Return the error that a validator raises for `findings`."""
    text = "; ".join(finding.reason for finding in findings)
    return PydanticCustomError(FINDING, "{text}", {"text": text, "findings": findings})


def raise_findings(findings: Iterable[Finding]) -> None:
    """Raise `finding_error` if there is a finding.

    Raises:
        pydantic_core.PydanticCustomError: there is a finding; only for use inside a validator.
    """
    found = tuple(findings)
    if found:
        raise finding_error(*found)


def with_tuples(value: object) -> object:
    """Return a mapping with tuples in place of lists: strict validation accepts no list after a "before" validator."""
    if not isinstance(value, dict):
        return value
    return {name: tuple(part) if isinstance(part, list) else part for name, part in value.items()}
