"""A rule's answer is a value that a person can read and a table can print."""

from enum import StrEnum

from enginesmith_contract.record import Record

__all__ = ["RuleAnswer", "Verdict"]


class Verdict(StrEnum):
    """`UNKNOWN`: no source says either way; it does not refuse, and the plan says so."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class RuleAnswer(Record):
    """What one rule says of one combination.

    Attributes:
        rule: CamelCase name of the rule ("DriverFloor").
        found: what the rule looked at, as text.
        wanted: what would make it a yes; empty on a yes.
        sources: ids of the matrix rows' sources.
    """

    rule: str
    verdict: Verdict
    found: str
    wanted: str = ""
    sources: tuple[str, ...] = ()
