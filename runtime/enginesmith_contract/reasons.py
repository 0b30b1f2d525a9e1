"""Meaning and remedy of each reason word: one validated row of `reasons.yaml` for each word.

A reason is an API: programs compare it, and users look it up in `docs/reference/reasons.md`, which is generated from
these rows. A new reason in the code needs a new row.
"""

from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Self

import yaml
from pydantic import model_validator

from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.record import Record

__all__ = ["Reason", "ReasonGroup", "ReasonPlace", "list_reasons"]


class ReasonPlace(StrEnum):
    """Where a reason appears."""

    CONDITION = "condition"
    EVENT = "event"
    PLAN_RULE = "plan rule"
    ERROR = "error"
    EXIT_CODE = "exit code"


class ReasonGroup(StrEnum):
    """Part of the product that gives a reason."""

    PLAN = "plan"
    MATRIX = "matrix"
    STATUS = "status"
    SOURCE = "source"
    PREPARATION = "preparation"
    BUILD = "build"
    STORE = "store"
    SERVING = "serving"
    REQUEST = "request"
    COMMAND_LINE = "command-line"
    CLUSTER = "cluster"


class Reason(Record):
    """One reason word.

    Attributes:
        reason: CamelCase word.
        group: Part of Enginesmith that first reports it.
        where: Places where it appears, each once.
        exit_code: Exit code for which this reason is reported if a process gives no other reason; None if there is no
            such code.
        means: What happened, as one sentence of Markdown.
        do: What helps, as one sentence of Markdown.
    """

    reason: str
    group: ReasonGroup
    where: tuple[ReasonPlace, ...]
    exit_code: ExitCode | None = None
    means: str
    do: str

    @model_validator(mode="after")
    def _require_matching_places(self) -> Self:
        if not self.where or len(set(self.where)) < len(self.where):
            raise ValueError("where needs at least one place, each once")
        if (self.exit_code is not None) != (ReasonPlace.EXIT_CODE in self.where):
            raise ValueError("exitCode and the place `exit code` need each other")
        return self


@cache
def list_reasons() -> tuple[Reason, ...]:
    """Return every row, in the order of `reasons.yaml`.

    Raises:
        pydantic.ValidationError: a row is invalid.
    """
    text = files("enginesmith_contract").joinpath("reasons.yaml").read_text(encoding="utf-8")
    return tuple(Reason.model_validate(row) for row in yaml.safe_load(text))
