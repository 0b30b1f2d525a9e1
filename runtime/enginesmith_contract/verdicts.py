"""The answer of a rule as a value that users can read and a table can print."""

from enum import StrEnum

from enginesmith_contract.record import Record

__all__ = ["RuleAnswer", "Verdict"]


class Verdict(StrEnum):
    """Verdict of a rule. `UNKNOWN` means that no source decides; it does not refuse, and the plan shows it."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class RuleAnswer(Record):
    """Answer of one rule for one combination.

    Attributes:
        rule: CamelCase name of the rule ("DriverFloor").
        found: Text that says what the rule found.
        wanted: Text that says what would make the answer YES; empty if it is YES.
        sources: IDs of the sources of the matrix rows.
    """

    rule: str
    verdict: Verdict
    found: str
    wanted: str = ""
    sources: tuple[str, ...] = ()
