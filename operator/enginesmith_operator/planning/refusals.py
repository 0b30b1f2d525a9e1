"""A "no" as a value, and many of them as a few lines.

A refusal says which rule, what was found and what would make it a yes; with a node's name it is the whole sentence.
Over a fleet refusals are counted by rule, with the three names that come first in natural order: the lines do not move
when nodes come in another order, and change little when one comes or goes. Nodes with the hardware that is asked for
come first, then nodes with another GPU, then those with none. Only the first of these groups has remedies: nothing is
to be done about the others.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from enginesmith_contract.record import Record

__all__ = ["Cause", "NodeRefusal", "Refusal", "RefusalCount", "count_refusals", "natural_order", "of_the_spec"]

_SHOWN: Final = 3
_DIGITS: Final = re.compile(r"(\d+)")
_DISTANCES: Final = {"ProductDiffers": 1, "ComputeCapability": 1, "NodeSelector": 1, "NotNvidia": 1, "NoGpu": 2}
"""Rules that say that a node is not meant at all, and how far it is from being; every other rule: 0."""


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


def of_the_spec(refusals: tuple[Refusal, ...]) -> str:
    """Return why each target has no plan where rules refuse the whole spec."""
    more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
    return f"the spec is refused: {refusals[0].sentence()}{more}"


class NodeRefusal(Record):
    """A refusal of one node or node class."""

    node: str
    refusal: Refusal

    def sentence(self) -> str:
        """Return it as one line."""
        return f"{self.node}: {self.refusal.sentence()}"


class Cause(Record):
    """What one rule found on some nodes; `wanted` is of the first of them."""

    found: str
    wanted: str
    count: int

    def text(self, *, with_wanted: bool, of: int) -> str:
        """Return it as a part of a line, the number of nodes behind where it is not `of`, that of all nodes."""
        count = "" if self.count == of else f" ({self.count})"
        return f"{self.found}; {self.wanted}{count}" if with_wanted and self.wanted else f"{self.found}{count}"


class RefusalCount(Record):
    """How many nodes one rule refused.

    Attributes:
        names: the first three in natural order.
        causes: the most frequent first, then by text.
    """

    rule: str
    count: int
    names: tuple[str, ...]
    causes: tuple[Cause, ...]

    def sentence(self) -> str:
        """Return it as one line: `DriverFloor: 12 nodes (a, b, c, ...): found; wanted`.

        Where the nodes differ in what was found, the three most frequent causes stand with their counts. A count that
        is that of all nodes is left out.
        """
        more = ", ..." if self.count > len(self.names) else ""
        head = f"{self.rule}: {self.count} {'node' if self.count == 1 else 'nodes'} ({', '.join(self.names)}{more}): "
        if len(self.causes) == 1:
            first = self.causes[0]
            return head + (f"{first.found}; {first.wanted}" if first.wanted else first.found)
        wanted = dict.fromkeys(cause.wanted for cause in self.causes if cause.wanted)
        shared = len(wanted) == 1
        shown = [cause.text(with_wanted=not shared, of=self.count) for cause in self.causes[:_SHOWN]]
        rest = len(self.causes) - len(shown)
        return (
            head
            + ", ".join(shown)
            + (f" and {rest} more" if rest else "")
            + (f"; {next(iter(wanted))}" if shared else "")
        )


def count_refusals(refusals: Iterable[NodeRefusal]) -> tuple[RefusalCount, ...]:
    """Group refusals by rule: of the nodes that are meant first, then the most frequent, then by name."""
    rules: dict[str, list[NodeRefusal]] = defaultdict(list)
    for one in refusals:
        rules[one.refusal.rule].append(one)
    nearest = min((_distance(rule) for rule in rules), default=0)
    counted = (_count(rule, found, has_remedy=_distance(rule) == nearest) for rule, found in rules.items())
    return tuple(sorted(counted, key=lambda one: (_distance(one.rule), -one.count, one.rule)))


def _distance(rule: str) -> int:
    return _DISTANCES.get(rule, 0)


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts node-2 before node-10."""
    parts = _DIGITS.split(name)
    return tuple((1, int(part), "") if part.isdecimal() and part.isascii() else (0, 0, part) for part in parts)


def _count(rule: str, refusals: list[NodeRefusal], *, has_remedy: bool) -> RefusalCount:
    nodes: dict[str, dict[str, str]] = defaultdict(dict)
    for one in sorted(refusals, key=lambda one: natural_order(one.node)):
        nodes[one.refusal.found].setdefault(one.node, one.refusal.wanted if has_remedy else "")
    causes = [Cause(found=found, wanted=next(iter(of.values())), count=len(of)) for found, of in nodes.items()]
    names = sorted({one.node for one in refusals}, key=natural_order)
    return RefusalCount(
        rule=rule,
        count=len(names),
        names=tuple(names[:_SHOWN]),
        causes=tuple(sorted(causes, key=lambda cause: (-cause.count, cause.found))),
    )
