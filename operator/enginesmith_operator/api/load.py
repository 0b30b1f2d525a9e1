"""Reads `InferenceEngine` values from a file, and reports all problems at once.

A file with a problem is refused as a whole, because its author can edit it. The operator reads objects of a cluster in
`controller/inference_engine/reconcile.py`: the API server has checked them against the CRD.
"""

import json
import re
from collections import Counter
from pathlib import Path as FilePath
from typing import Final

from pydantic import ValidationError

from enginesmith_operator.api.documents import MAX_BYTES, Document, read_documents
from enginesmith_operator.api.explain import Located, explain, nearest_word
from enginesmith_operator.api.inference_engine import API_VERSION, KIND, InferenceEngine
from enginesmith_operator.api.problems import Path, Problem, SpecProblemsError, Value, spell_value
from enginesmith_operator.api.regular_files import what_it_is

__all__ = ["load_documents", "read_file"]

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def read_file(path: FilePath | str) -> tuple[InferenceEngine, ...]:
    """Return the engines of a YAML or JSON file.

    Raises:
        enginesmith_contract.errors.SpecError: the file cannot be read, or a document in it is invalid.
    """
    where = str(path)
    try:
        special = what_it_is(FilePath(path))
        if special:
            problem = Problem(where=where, reason=f"the path is {special}, not a file", hint="save the text as a file")
            raise SpecProblemsError(where, [problem])
        with FilePath(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        problem = Problem(where=where, reason=f"the file cannot be read: {words}", hint="check the path")
        raise SpecProblemsError(where, [problem]) from error
    if len(data) > MAX_BYTES:
        raise SpecProblemsError(where, [_too_large(where)])
    try:
        return load_documents(data.decode("utf-8-sig"), where=where)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem(where=f"{where}:{line}", reason="the file is not UTF-8 text", hint="save it as UTF-8")
        raise SpecProblemsError(where, [problem]) from error


def load_documents(text: str, *, where: str) -> tuple[InferenceEngine, ...]:
    """Return the engines in a text of one or more YAML documents, in order.

    Args:
        text: Documents in YAML or JSON.
        where: Name of the file, for messages.

    Raises:
        enginesmith_contract.errors.SpecError: there is a problem; a `SpecProblemsError` lists all of them.
    """
    # A character takes up to four bytes; check the cheap bound first.
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise SpecProblemsError(where, [_too_large(where)])
    if not text.isascii() and _SURROGATE.search(text):
        problem = Problem(where=where, reason="the text has an incomplete character (a lone surrogate)")
        raise SpecProblemsError(where, [problem])
    documents, problems = read_documents(text, where=where)
    engines: list[InferenceEngine] = []
    names: Counter[tuple[str | None, str]] = Counter()
    for document in documents:
        engine, found = _engine(document, where)
        problems.extend(found)
        if engine is not None:
            key = (engine.metadata.namespace, engine.metadata.name)
            names[key] += 1
            if names[key] > 1:
                problems.append(_duplicate(document, where, engine.metadata.name, names[key]))
            engines.append(engine)
    if not documents and not problems:
        problems.append(Problem(where=where, reason="the file has no document", hint=f"write one of kind {KIND}"))
    if problems:
        raise SpecProblemsError(where, sorted(problems, key=_by_line))
    return tuple(engines)


def _engine(document: Document, where: str) -> tuple[InferenceEngine | None, list[Problem]]:
    value = document.value
    if not isinstance(value, dict):
        problem = Problem(
            where=f"{where}:{document.line}", found=spell_value(value), reason=f"expected a mapping of kind {KIND}"
        )
        return None, [problem, *document.problems]
    located = _kind_problems(value)
    engine = None
    if not located:
        try:
            engine = _validate(value)
        except ValidationError as error:
            located = list(explain(error, value, document.texts))
        except (ValueError, RecursionError) as error:
            located = [Located((), Problem(reason=f"the document cannot be read: {error}"))]
    found = [each.problem.model_copy(update={"where": f"{where}:{document.line_of(each.path)}"}) for each in located]
    return engine, [*document.problems, *found]


def _validate(document: dict[str, Value]) -> InferenceEngine:
    # Validate JSON text: its strict mode accepts lists for tuples and strings for enums.
    text = json.dumps(document)
    return InferenceEngine.model_validate_json(text, strict=True, by_alias=True, by_name=False)


def _kind_problems(document: dict[str, Value]) -> list[Located]:
    """Check only apiVersion and kind: the fields of another kind are not validated."""
    found: list[Located] = []
    for name, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        value = document.get(name)
        if value == wanted:
            continue
        path: Path = (name,) if name in document else ()
        reason = f"expected {wanted}" if name in document else "the field is required"
        hint = ""
        if name == "apiVersion" and isinstance(value, str) and value.startswith("enginesmith.io/"):
            hint = "this release supports no other version"
        near = value is None or (isinstance(value, str) and nearest_word(value, [wanted]))
        nearest = f"{name}: {wanted}" if value is None else (wanted if near or hint else "")
        shown = spell_value(value) if name in document else ""
        found.append(Located(path, Problem(path=name, found=shown, reason=reason, nearest=nearest, hint=hint)))
    return found


def _too_large(where: str) -> Problem:
    return Problem(where=where, reason=f"the file is larger than {MAX_BYTES} bytes", hint="is this the right file?")


def _duplicate(document: Document, where: str, name: str, count: int) -> Problem:
    line = document.line_of(("metadata", "name"))
    return Problem(
        where=f"{where}:{line}",
        path="metadata.name",
        found=spell_value(name),
        reason="an earlier document in the file has the same name",
        nearest=f"{name}-{count}",
    )


def _by_line(problem: Problem) -> int:
    line = problem.where.rpartition(":")[2]
    return int(line) if line.isdecimal() else 0
