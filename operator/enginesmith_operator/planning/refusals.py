"""A "no" as a value, and many of them as a few lines.

A refusal says which rule, what was found and what would make it a yes; with a node's name it is the whole sentence.
Over a fleet refusals are counted by rule, with the three names that come first in the alphabet: the lines do not move
when nodes come in another order, and change little when one comes or goes.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from enginesmith_contract.record import Record

__all__ = ["NodeRefusal", "Refusal", "RefusalCount", "count_refusals", "natural_order"]

_SHOWN: Final = 3
_DIGITS: Final = re.compile(r"(\d+)")


class Refusal(Record):
    """One rule's no.

    Attributes:
        rule: CamelCase, stable.
        found: what was looked at, as a clause.
        wanted: what would make it a yes, as an imperative; empty where nothing on this node can.
    """

    rule: str
    found: str
    wanted: str = ""

    def sentence(self) -> str:
        """Return it as one line."""
        return f"{self.rule}: {self.found}; {self.wanted}" if self.wanted else f"{self.rule}: {self.found}"


class NodeRefusal(Record):
    """A refusal of one node or node class."""

    node: str
    refusal: Refusal

    def sentence(self) -> str:
        """Return it as one line."""
        return f"{self.node}: {self.refusal.sentence()}"


class RefusalCount(Record):
    """How many nodes one rule refused for the same cause.

    Attributes:
        names: the first three in natural order.
        wanted: of the first of them.
    """

    rule: str
    found: str
    wanted: str
    count: int
    names: tuple[str, ...]

    def sentence(self) -> str:
        """Return it as one line: `DriverFloor: 12 nodes (a, b, c, ...): found; wanted`."""
        more = ", ..." if self.count > len(self.names) else ""
        nodes = "node" if self.count == 1 else "nodes"
        head = f"{self.rule}: {self.count} {nodes} ({', '.join(self.names)}{more}): {self.found}"
        return f"{head}; {self.wanted}" if self.wanted else head


def count_refusals(refusals: Iterable[NodeRefusal]) -> tuple[RefusalCount, ...]:
    """Group refusals by rule and cause; the most frequent first, then by rule and cause."""
    groups: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for one in refusals:
        groups[one.refusal.rule, one.refusal.found].setdefault(one.node, one.refusal.wanted)
    counts = [_count(rule, found, nodes) for (rule, found), nodes in groups.items()]
    return tuple(sorted(counts, key=lambda one: (-one.count, one.rule, one.found)))


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts node-2 before node-10."""
    parts = _DIGITS.split(name)
    return tuple((1, int(part), "") if part.isdecimal() and part.isascii() else (0, 0, part) for part in parts)


def _count(rule: str, found: str, nodes: dict[str, str]) -> RefusalCount:
    names = sorted(nodes, key=natural_order)
    return RefusalCount(rule=rule, found=found, wanted=nodes[names[0]], count=len(names), names=tuple(names[:_SHOWN]))
