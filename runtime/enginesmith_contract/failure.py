"""An error as a value, for a termination message: the four things that its reader needs, and how to handle it."""

from typing import Self

from pydantic import field_validator

from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.record import Record
from enginesmith_contract.text import encodable

__all__ = ["Failure"]


class Failure(Record):
    """One `EnginesmithError` as a value; see there for what each part says.

    Attributes:
        exit_code: what the process ended with (`enginesmith_contract.exit_codes`).
        what: what went wrong, as a clause.
        where: the field, file, node or tensor it is about.
        why: what was found.
        remedy: what to do, as an imperative.
        reason: a stable CamelCase word.
        retry: whether the same attempt may succeed later without a change by the user.
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
