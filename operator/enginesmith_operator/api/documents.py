"""YAML as kubectl reads it, with the line of every value and bounds on the work of the reader.

PyYAML parses into a stream of events; this module constructs the values, because PyYAML's constructors recurse without
bound, keep the last of two equal keys, and read `1e-2` as a string and `2026-01-01` as a date. A document becomes plain
values (None, bool, int, float, str, list, dict) and a map from each path to its line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import yaml

from enginesmith_operator.api.problems import Path, Problem, Value, spell_path

__all__ = ["MAX_BYTES", "Document", "read_documents"]

MAX_BYTES: Final = 1 << 20
"""Largest file that is read, in bytes; the API server's limit for an object is similar."""
_MAX_DEPTH: Final = 32
_MAX_VALUES: Final = 50_000
_MAX_DOCUMENTS: Final = 256

# The C parser, if PyYAML was built with it, gives the same events thirty times as fast.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = re.compile(r"~|null|Null|NULL|", re.ASCII)
_TRUE = re.compile(r"true|True|TRUE|yes|Yes|YES|on|On|ON", re.ASCII)
_FALSE = re.compile(r"false|False|FALSE|no|No|NO|off|Off|OFF", re.ASCII)
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]{0,29}|0b[01_]{1,64}|0o?[0-7_]{1,24}|0x[0-9a-fA-F_]{1,16})", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?", re.ASCII)
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)
_PLAIN_TAGS: Final = frozenset({"!", "tag:yaml.org,2002:str"})


@dataclass(kw_only=True)
class Document:
    """One document of a file while it is read.

    Attributes:
        value: Value of the document; None if it is empty.
        lines: Line of every value and key, counted from 1.
        texts: Text of every scalar as it was written, without quotes.
        problems: Errors in the document's YAML.
    """

    value: Value = None
    line: int = 1
    lines: dict[Path, int] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, path: Path) -> int:
        """Return the line of the value at `path`, or of the nearest value around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return self.line


class _UnreadableError(Exception):
    """The rest of the file cannot be read; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.reason)
        self.problem = problem


@dataclass(kw_only=True)
class _Scalar:
    text: str
    plain: bool
    line: int


@dataclass(kw_only=True)
class _List:
    items: "list[_Node]"
    line: int


@dataclass(kw_only=True)
class _Map:
    pairs: "list[tuple[_Node, _Node]]"
    line: int


_Node = _Scalar | _List | _Map


def read_documents(text: str, *, where: str) -> tuple[list[Document], list[Problem]]:
    """Return the documents of a file that are not empty, and the problem because of which the rest cannot be read.

    Args:
        text: Text of the file.
        where: Name of the file, for messages.
    """
    documents: list[Document] = []
    try:
        for root in _Composer(text, where).roots():
            document = Document(line=root.line)
            _Constructor(document, where).construct(root)
            if document.value is not None or document.problems:
                documents.append(document)
    except _UnreadableError as error:
        return documents, [error.problem]
    return documents, []


class _Composer:
    """Composes nodes from events. An alias is the same node again, so that a bomb is counted when it is expanded."""

    def __init__(self, text: str, where: str) -> None:
        self._where = where
        self._events = self._parse(text)
        self._anchors: dict[str, _Node] = {}

    def roots(self) -> Iterator[_Node]:
        """Yield the root of every document."""
        count = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                count += 1
                if count > _MAX_DOCUMENTS:
                    raise self._unreadable(_line(event), f"more than {_MAX_DOCUMENTS} documents in one file")
                self._anchors = {}
                yield self._node(next(self._events), 0)

    def _parse(self, text: str) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            reason = ", ".join(part for part in (error.context, error.problem) if part)
            raise self._unreadable(mark.line + 1 if mark else 1, reason) from None
        except yaml.YAMLError as error:
            raise self._unreadable(1, str(error).partition("\n")[0]) from None

    def _node(self, event: yaml.Event, depth: int) -> _Node:
        line = _line(event)
        if depth > _MAX_DEPTH:
            raise self._unreadable(line, f"nested more than {_MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise self._unreadable(line, f"the alias *{event.anchor} has no earlier anchor")
            return self._anchors[event.anchor]
        node = self._new_node(event, line, depth)
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            # Register the anchor after its value, so that a value cannot contain itself.
            self._anchors[event.anchor] = node
        return node

    def _new_node(self, event: yaml.Event, line: int, depth: int) -> _Node:
        tag = getattr(event, "tag", None)
        if isinstance(event, yaml.ScalarEvent):
            if tag is not None and tag not in _PLAIN_TAGS:
                raise self._unreadable(line, f"the tag {tag[:64]} is not supported; write the value without it")
            return _Scalar(text=event.value, plain=event.implicit[0] and tag is None, line=line)
        if tag not in {None, "!", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"}:
            raise self._unreadable(line, f"the tag {str(tag)[:64]} is not supported; write the value without it")
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(following := next(self._events), yaml.SequenceEndEvent):
                items.append(self._node(following, depth + 1))
            return _List(items=items, line=line)
        pairs = []
        while not isinstance(following := next(self._events), yaml.MappingEndEvent):
            key = self._node(following, depth + 1)
            pairs.append((key, self._node(next(self._events), depth + 1)))
        return _Map(pairs=pairs, line=line)

    def _unreadable(self, line: int, reason: str) -> _UnreadableError:
        return _UnreadableError(Problem(where=f"{self._where}:{line}", reason=reason))


class _Constructor:
    """Constructs one document's values from its nodes."""

    def __init__(self, document: Document, where: str) -> None:
        self._document = document
        self._where = where
        self._values = 0

    def construct(self, root: _Node) -> None:
        """Fill the document."""
        self._document.value = self._value(root, (), 0)

    def _value(self, node: _Node, path: Path, depth: int) -> Value:
        self._values += 1
        if self._values > _MAX_VALUES or depth > _MAX_DEPTH:
            reason = "the document expands to too many values (aliases that repeat aliases?)"
            raise _UnreadableError(Problem(where=f"{self._where}:{node.line}", reason=reason))
        self._document.lines.setdefault(path, node.line)
        if isinstance(node, _Scalar):
            self._document.texts[path] = node.text
            return _scalar(node)
        if isinstance(node, _List):
            return [self._value(item, (*path, index), depth + 1) for index, item in enumerate(node.items)]
        return self._mapping(node, path, depth)

    def _mapping(self, node: _Map, path: Path, depth: int) -> dict[str, Value]:
        own = {key.text for key, _ in node.pairs if isinstance(key, _Scalar)}
        result: dict[str, Value] = {}
        first_lines: dict[str, int] = {}
        for key, value in self._merged(node, own, path, 0):
            if not isinstance(key, _Scalar) or (key.plain and not isinstance(_scalar(key), str)):
                nearest = f'"{key.text}"' if isinstance(key, _Scalar) and key.text else ""
                self._add(key.line, path, "a field's name must be a string", nearest)
                continue
            name = key.text
            if name in result:
                self._add(key.line, (*path, name), f"the field is set twice, first on line {first_lines[name]}")
                continue
            first_lines[name] = key.line
            self._document.lines[(*path, name)] = key.line
            result[name] = self._value(value, (*path, name), depth + 1)
        return result

    def _merged(self, node: _Map, own: set[str], path: Path, depth: int) -> Iterator[tuple[_Node, _Node]]:
        """Yield the pairs of a mapping, then the pairs of its merge keys (`<<: *anchor`) that it does not override."""
        merges: list[_Node] = []
        for key, value in node.pairs:
            if isinstance(key, _Scalar) and key.plain and key.text == "<<":
                merges.extend(value.items if isinstance(value, _List) else [value])
            else:
                yield key, value
        for merge in merges:
            self._values += 1
            if not isinstance(merge, _Map) or depth > _MAX_DEPTH:
                self._add(merge.line, path, "expected a mapping or a list of mappings after a merge key")
                continue
            for key, value in self._merged(merge, own, path, depth + 1):
                if isinstance(key, _Scalar) and key.text not in own:
                    own.add(key.text)
                    yield key, value

    def _add(self, line: int, path: Path, reason: str, nearest: str = "") -> None:
        where = f"{self._where}:{line}"
        self._document.problems.append(Problem(where=where, path=spell_path(path), reason=reason, nearest=nearest))


def _scalar(node: _Scalar) -> Value:
    text = node.text
    if not node.plain:
        return text
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return _TRUE.fullmatch(text) is not None
    return _number(text)


def _number(text: str) -> Value:
    if _INT.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return float(text.lower().replace(".", "")) if _INFINITE.fullmatch(text) else text


def _integer(text: str) -> Value:
    sign, digits = (-1 if text.startswith("-") else 1), text.lstrip("+-").replace("_", "").lower()
    octal = len(digits) > 1 and digits.startswith("0") and digits[1] not in "xbo"
    try:
        return sign * int(f"0o{digits[1:]}" if octal else digits, base=0)
    except ValueError:
        return text


def _line(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else int(event.start_mark.line) + 1
