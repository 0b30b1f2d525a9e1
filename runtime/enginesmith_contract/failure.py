"""An error as a value for a termination message: the four parts that its reader needs, and how to handle it."""

from typing import Self

from pydantic import field_validator

from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.record import Record
from enginesmith_contract.text import encodable

__all__ = ["Failure"]


class Failure(Record):
    """One `EnginesmithError` as a value, with the same parts.

    Attributes:
        exit_code: Exit code of the process that failed.
        what: Clause that says what went wrong.
        where: Field, file, node or tensor that the failure is about.
        why: Observation that explains the failure.
        remedy: Action for the user, as an imperative.
        reason: One stable CamelCase word for programs that names the kind of failure.
        retry: Whether the same attempt may succeed later without a change by the user.
    """

    exit_code: int
    what: str
    where: str = ""
    why: str = ""
    remedy: str = ""
    reason: str
    retry: bool = False

    @field_validator("what", "where", "why", "remedy")
    @classmethod
    def _make_encodable(cls, text: str) -> str:
        return encodable(text)

    @classmethod
    def from_error(cls, error: EnginesmithError) -> Self:
        """Return `error` as a value."""
        return cls(
            exit_code=int(error.exit_code),
            what=error.what,
            where=error.where,
            why=error.why,
            remedy=error.remedy,
            reason=error.reason,
            retry=error.retry,
        )

    def sentence(self) -> str:
        """Return the whole message, as the error itself would."""
        error = EnginesmithError(self.what, where=self.where, why=self.why, remedy=self.remedy, reason=self.reason)
        return error.sentence()
