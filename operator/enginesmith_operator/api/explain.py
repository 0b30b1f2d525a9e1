"""Describes pydantic's errors in the terms of the document.

One rule per error type, as a table: what is expected, and the nearest valid value.
"""

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from enginesmith_operator.api.base import FINDING, Finding
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.introspect import fields_by_alias, model_at, places_of
from enginesmith_operator.api.problems import Path, Problem, Value, spell_path, spell_value

__all__ = ["Located", "explain", "nearest_word"]


_EXACT: Final = float(1 << 53)
"""Below this value a float represents every whole number exactly."""


class Located(NamedTuple):
    """Problem with the path of its field, for the line in the file."""

    path: Path
    problem: Problem


def explain(error: ValidationError, document: Value, texts: Mapping[Path, str]) -> Iterator[Located]:
    """Yield the problems that `error` reports.

    Args:
        error: Error from validating `document` as an InferenceEngine.
        document: Document that was validated.
        texts: Text of every scalar as it was written; empty for an object of a cluster.
    """
    for details in error.errors(include_url=False):
        path = _existing(details["loc"], document, missing=details["type"] == "missing")
        if details["type"] == FINDING:
            for finding in details["ctx"]["findings"]:
                whole = _existing((*path, *finding.path), document, missing=False)
                yield _located(whole, finding, document)
        elif not _is_echo(details):
            yield _located(path, _finding(details, path, texts), document)


def nearest_word(word: str, choices: list[str]) -> str:
    """Return the choice that `word` most likely stands for; empty if none is close."""
    folded = {choice.lower().replace("-", "").replace("_", ""): choice for choice in choices}
    plain = word.lower().replace("-", "").replace("_", "").replace(" ", "")
    if plain in folded:
        return folded[plain]
    close = get_close_matches(plain[:64], list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else ""


def _located(path: Path, finding: Finding, document: Value) -> Located:
    found, there = _lookup(path, document)
    problem = Problem(
        path=spell_path(path),
        found=spell_value(found) if there else "",
        reason=finding.reason,
        nearest=finding.nearest,
        hint=finding.hint,
    )
    return Located(path, problem)


def _existing(loc: Path, document: Value, *, missing: bool) -> Path:
    """Return `loc` cut to the part that exists in the document: the short form of a mapping has no fields inside."""
    here: object = document
    for depth, step in enumerate(loc):
        here, there = _lookup((step,), here)
        if not there:
            return loc if missing and depth == len(loc) - 1 else loc[:depth]
    return loc


def _lookup(path: Path, document: object) -> tuple[object, bool]:
    here: Any = document
    for step in path:
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            return None, False
    return here, True


def _is_echo(details: ErrorDetails) -> bool:
    """Whether a list is too short only because its invalid entries, which are reported separately, were dropped."""
    given = details["input"]
    return details["type"] == "too_short" and isinstance(given, list) and len(given) >= details["ctx"]["min_length"]


def _finding(details: ErrorDetails, path: Path, texts: Mapping[Path, str]) -> Finding:
    if details["type"] == "extra_forbidden":
        return _unknown_field(path)
    if details["type"] == "string_type" and not isinstance(details["input"], dict | list | None):
        text = texts.get(path, spell_value(details["input"]))
        return Finding("expected a string", f'"{text}"', hint="put it in quotes")
    if details["input"] is None and details["type"].endswith("_type"):
        return Finding("the field is empty", hint="give it a value or remove the line")
    rule = _RULES.get(details["type"])
    if rule is None:
        return Finding(details["msg"][:1].lower() + details["msg"][1:])
    return rule(details["input"], details.get("ctx", {}))


def _unknown_field(path: Path) -> Finding:
    name, parent = str(path[-1]), model_at(InferenceEngine, path[:-1])
    known = list(fields_by_alias(parent)) if parent is not None else []
    if to_camel(name) in known and "_" in name:
        return Finding("unknown field; fields are spelled in camelCase", to_camel(name))
    nearest = nearest_word(name, known)
    places = places_of(InferenceEngine).get(to_camel(name), ())
    if not nearest and places:
        return Finding("unknown field", hint=f"move it to {' or '.join(places[:2])}")
    if not nearest and known:
        return Finding("unknown field", hint=f"known fields are {', '.join(known)}")
    return Finding("unknown field", nearest)


def _missing(_value: object, _context: Mapping[str, Any]) -> Finding:
    return Finding("the field is required", hint="add it")


def _choice(value: object, context: Mapping[str, Any]) -> Finding:
    choices = [word.strip("'") for word in str(context["expected"]).replace(" or ", ", ").split(", ")]
    nearest = nearest_word(str(value), choices) if isinstance(value, str) else ""
    return Finding(f"expected {'one of ' if len(choices) > 1 else ''}{', '.join(choices)}", nearest)


def _integer(value: object, _context: Mapping[str, Any]) -> Finding:
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        return Finding("expected a whole number", value.strip(), hint="write it without quotes")
    return Finding(
        "expected a whole number", str(round(value)) if isinstance(value, float) and abs(value) < _EXACT else ""
    )


def _number(value: object, _context: Mapping[str, Any]) -> Finding:
    nearest = value.strip() if isinstance(value, str) and _reads_as_number(value) else ""
    return Finding("expected a number", nearest, hint="write it without quotes" if nearest else "")


def _boolean(value: object, _context: Mapping[str, Any]) -> Finding:
    word = str(value).lower() if isinstance(value, str | int) else ""
    nearest = {"1": "true", "true": "true", "yes": "true", "0": "false", "false": "false", "no": "false"}.get(word, "")
    return Finding("expected true or false", nearest)


def _bound(words: str, key: str) -> Callable[[object, Mapping[str, Any]], Finding]:
    def explain_bound(_value: object, context: Mapping[str, Any]) -> Finding:
        limit = context[key]
        return Finding(f"expected {words} {limit}", f"{limit}" if key in {"ge", "le"} else "")

    return explain_bound


def _length(words: str, key: str, what: str) -> Callable[[object, Mapping[str, Any]], Finding]:
    return lambda _value, context: Finding(f"expected {words} {context[key]} {what}")


def _expected(what: str) -> Callable[[object, Mapping[str, Any]], Finding]:
    return lambda _value, _context: Finding(f"expected {what}")


def _pattern(_value: object, context: Mapping[str, Any]) -> Finding:
    return Finding(f"expected a string that matches {context['pattern']}")


def _reads_as_number(text: str) -> bool:
    try:
        return abs(float(text)) < _EXACT
    except ValueError:
        return False


_RULES: Final[Mapping[str, Callable[[Any, Mapping[str, Any]], Finding]]] = {
    "missing": _missing,
    "enum": _choice,
    "literal_error": _choice,
    "int_type": _integer,
    "int_parsing": _integer,
    "int_from_float": _integer,
    "int_parsing_size": _expected("a whole number that fits 64 bits"),
    "float_type": _number,
    "float_parsing": _number,
    "finite_number": _expected("a finite number"),
    "bool_type": _boolean,
    "bool_parsing": _boolean,
    "string_type": _expected("a string"),
    "tuple_type": _expected("a list"),
    "list_type": _expected("a list"),
    "dict_type": _expected("a mapping"),
    "mapping_type": _expected("a mapping"),
    "model_type": _expected("a mapping"),
    "model_attributes_type": _expected("a mapping"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than_equal": _bound("at most", "le"),
    "greater_than": _bound("more than", "gt"),
    "less_than": _bound("less than", "lt"),
    "string_too_short": _length("at least", "min_length", "characters"),
    "string_too_long": _length("at most", "max_length", "characters"),
    "too_short": _length("at least", "min_length", "entries"),
    "too_long": _length("at most", "max_length", "entries"),
    "string_pattern_mismatch": _pattern,
}
