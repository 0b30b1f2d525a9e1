"""Answers about a fleet that many documents ask for, remembered for as long as the same fleet is looked at.

A thousand documents that want an L4 ask every node the same questions. The answers depend on the snapshot's fleet
(nodes, node classes, toolchains) and on the question alone, so remembering them changes no plan. A fleet is
known by identity: a caller that makes many plans passes the same tuples (`Observed.model_copy` keeps them).
"""

from collections.abc import Callable, Hashable
from operator import is_
from typing import Any, Final, TypeVar, cast

from enginesmith_operator.planning.snapshot import Observed

__all__ = ["remembered"]

Answer = TypeVar("Answer")
_MOST_ANSWERS: Final = 512


class _FleetMemo:
    """Answers about the fleet that was asked about last."""

    def __init__(self) -> None:
        self._fleet: tuple[Any, ...] = ()
        self._answers: dict[Hashable, Any] = {}

    def ask(self, observed: Observed, question: Hashable, answer: Callable[[], Answer]) -> Answer:
        fleet = (
            observed.nodes,
            observed.node_classes,
            observed.matrix,
            observed.toolchains,
            observed.platforms,
            observed.unreadable_toolchains,
        )
        is_same = len(self._fleet) == len(fleet) and all(map(is_, fleet, self._fleet))
        if not is_same:
            # Held, not only compared: an id could come back for another object.
            self._fleet, self._answers = fleet, {}
        if question not in self._answers:
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            self._answers[question] = answer()
        return cast("Answer", self._answers[question])


_MEMO: Final = _FleetMemo()


def remembered(observed: Observed, question: Hashable, answer: Callable[[], Answer]) -> Answer:
    """Return the answer to `question` about the fleet of `observed`; `answer` finds it where it is not known yet."""
    return _MEMO.ask(observed, question, answer)
