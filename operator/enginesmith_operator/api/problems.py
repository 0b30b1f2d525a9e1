"""Problems of a document: the place, the field, what was found, what is expected, and the nearest valid value.

pydantic finds the errors; this module describes them in the terms of the file. All errors of a document are listed, in
the order of its lines.
"""

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from enginesmith_contract.errors import SpecError
from enginesmith_contract.record import Record

__all__ = ["Path", "Problem", "SpecProblemsError", "Value", "spell_path", "spell_value"]

Path: TypeAlias = tuple[str | int, ...]
"""Path from a document's root to a value."""
Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
"""Value that YAML and JSON can represent."""

_LONGEST_VALUE: Final = 80
_MOST_PROBLEMS: Final = 50


class Problem(Record):
    """One thing that is wrong.

    Attributes:
        where: Place as "file:line"; empty for an object of a cluster.
        path: Path of the field as the user wrote it ("spec.targets[0].backend"); empty for the document as a whole.
        found: Value that was found, as JSON; empty if there is none.
        reason: Clause that says what is expected.
        nearest: Valid value as the user would write it.
        hint: Sentence that says what to do, if a value alone does not say it.
    """

    where: str = ""
    path: str = ""
    found: str = ""
    reason: str
    nearest: str = ""
    hint: str = ""

    @property
    def remedy(self) -> str:
        """Return what to do; empty if nothing is known."""
        suggestion = f"did you mean `{self.nearest}`?" if self.nearest else ""
        if self.nearest and not any(letter.isalpha() for letter in self.nearest):
            suggestion = f"the nearest valid value is {self.nearest}"
        return "; ".join(part for part in (suggestion, self.hint) if part)

    def sentence(self, *, with_place: bool = True) -> str:
        """Return the whole problem on one line."""
        body = f"found {self.found}: {self.reason}" if self.found else self.reason
        head = ": ".join(part for part in (self.where if with_place else "", self.path, body) if part)
        return f"{head}; {self.remedy}" if self.remedy else head


class SpecProblemsError(SpecError):
    """A document has the problems that `problems` lists."""

    def __init__(self, where: str, problems: Iterable[Problem]) -> None:
        """Combine all `problems` of the file `where` into one error."""
        self.problems = tuple(problems)
        count = len(self.problems)
        if count == 1:
            super().__init__(self.problems[0].sentence())
            return
        lines = [problem.sentence() for problem in self.problems[:_MOST_PROBLEMS]]
        if count > _MOST_PROBLEMS:
            lines.append(f"and {count - _MOST_PROBLEMS} more")
        super().__init__(f"{count} problems:" + "".join(f"\n  {line}" for line in lines), where=where)


def spell_path(path: Path) -> str:
    """Return `path` as a user reads it: `spec.targets[0].gpu.product`, `spec.profiles[0].inputs["input.1"].min`."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif step.isidentifier():
            parts.append(f".{step}" if parts else step)
        else:
            parts.append(f"[{_quoted(step)}]")
    return "".join(parts)


def spell_value(value: object) -> str:
    """Return a value as short JSON-like text; a mapping or a long list only by its kind."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Mapping):
        return "a mapping" if value else "{}"
    if isinstance(value, list | tuple):
        text = f"[{', '.join(spell_value(item) for item in value[:16])}]"
        return text if len(value) <= 16 and len(text) <= _LONGEST_VALUE else f"a list of {len(value)}"  # noqa: PLR2004 - as many as fit a line
    return str(value)[:_LONGEST_VALUE]


def _quoted(text: str) -> str:
    shown = text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
    escaped = "".join(letter if letter.isprintable() and letter not in '"\\' else _escape(letter) for letter in shown)
    return f'"{escaped}"'


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode() if letter not in '"\\' else f"\\{letter}"
