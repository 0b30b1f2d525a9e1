"""What a pass wants done, as values: they are computed without I/O and carried out in one place (`act`)."""

from dataclasses import dataclass

from enginesmith_operator.controller.shared.cache import Address

__all__ = ["Deletion", "EventNote"]


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """One certain object to delete."""

    address: Address
    uid: str


@dataclass(frozen=True, kw_only=True)
class EventNote:
    """An event that matters to users, emitted once.

    Attributes:
        is_warning: whether something is wrong.
        reason: one CamelCase word.
        since: what tells this occurrence from an earlier one of the same words.
    """

    is_warning: bool
    reason: str
    message: str
    since: str = ""
