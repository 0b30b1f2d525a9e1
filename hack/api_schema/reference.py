"""Reference pages: every field with type, default and meaning, and an example that loads for each field of a spec."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import annotated_types
from pydantic import BaseModel, WithJsonSchema

from api_schema.descriptions import attribute_docs, summary
from api_schema.kinds import DEFINITIONS, Definition
from api_schema.structural import default_of
from enginesmith_operator.api import conditions
from enginesmith_operator.api.bounds import Bounds
from enginesmith_operator.api.introspect import FieldType, field_type, fields_by_alias
from enginesmith_operator.api.quantities import BYTES_PATTERN, DURATION_PATTERN, QUANTITY_PATTERN

__all__ = ["FieldEntry", "definition_page", "engine_page", "field_entries"]

_ENGINE: Final = DEFINITIONS[0]
_NOTE: Final = "<!-- Written by hack/generate-reference from operator/enginesmith_operator/api; do not edit. -->\n"
_ENGINE_HEAD: Final = """# InferenceEngine

{summary}

`apiVersion: {version}`, `kind: InferenceEngine`, short name `ie`. In addition to `apiVersion`, `kind` and
`metadata` (whose `name` is a DNS label that starts with a letter and is the model's name for clients), it has `spec`,
described here, and [`status`](#status), which only the operator writes.

- **bytes**: a number, or a number with a suffix as in Kubernetes (`512Mi`, `2Gi`, `1.5G`).
- **duration**: numbers with units as in Go (`500us`, `5s`, `30m`, `1h30m`).
- **version range**: as in Python requirements (`>=10.9,<12`, `==10.13.*`).
- Fields in bold are required if the structure around them is given.

[every-field.yaml](every-field.yaml) has all examples in complete documents.
"""
_HEAD: Final = """# {kind}

{summary}

`apiVersion: {version}`, `kind: {kind}`, short name `{short}`. Fields in bold are required if the structure around
them is given. {about}
"""

_PATTERNS: Final[Mapping[str, str]] = {
    BYTES_PATTERN: "bytes",
    DURATION_PATTERN: "duration",
    QUANTITY_PATTERN: "quantity",
}


class FieldEntry(NamedTuple):
    """One field of the page.

    Attributes:
        path: Path such as "spec.targets[].gpu.product"; `<name>` stands for a key that the user chooses.
        words: Type of the field, as the page shows it.
        default: Default as YAML, empty if there is none.
        section: Field of `spec` that the entry belongs to.
    """

    path: str
    words: str
    default: str
    meaning: str
    required: bool
    section: str
    model: type[BaseModel]


def field_entries(definition: Definition, part: str) -> tuple[FieldEntry, ...]:
    """Return every field of one part of a kind ("spec" or "status"), in the order of the types."""
    model = definition.spec if part == "spec" else definition.status
    return tuple(_entries(model, f"{part}.", "")) if model is not None else ()


def engine_page(examples: Sequence[Mapping[str, Any]]) -> str:
    """Return the page of InferenceEngine as Markdown.

    Args:
        examples: Documents that together set every field of the spec.

    Raises:
        LookupError: no document sets a field.
    """
    parts = [_NOTE, _ENGINE_HEAD.format(summary=summary(_ENGINE.root), version=_API_VERSION)]
    section = ""
    for entry in field_entries(_ENGINE, "spec"):
        if entry.section != section:
            section = entry.section
            parts.append(f"\n## spec.{section}\n\n{_introduction(section)}\n\n{_EXAMPLE_HEAD}")
        parts.append(_row(entry, f"`{_example(entry.path, examples)}`"))
    return "".join([*parts, _status(_ENGINE)])


def definition_page(definition: Definition) -> str:
    """Return the page of another kind as Markdown."""
    resource = definition.resource
    head = _HEAD.format(
        kind=resource.kind,
        summary=summary(definition.root),
        version=resource.api_version,
        short=definition.short_name,
        about=definition.about,
    )
    rows = [_row(entry) for entry in field_entries(definition, "spec")]
    spec = f"\n## spec\n\n{summary(definition.spec)}\n\n{_TABLE_HEAD}"
    return "".join([_NOTE, head, spec, *rows, _status(definition)])


_API_VERSION: Final = _ENGINE.resource.api_version
_EXAMPLE_HEAD: Final = "| field | type | default | meaning | example |\n|---|---|---|---|---|\n"
_TABLE_HEAD: Final = "| field | type | default | meaning |\n|---|---|---|---|\n"


def _status(definition: Definition) -> str:
    """Return what the operator writes: conditions first, since they say why; empty for a kind without a status."""
    if definition.status is None:
        return ""
    rows = [_row(entry) for entry in field_entries(definition, "status")]
    return (
        f"\n## status\n\n{summary(definition.status)}\n\n{_condition_table(definition)}\n{_TABLE_HEAD}{''.join(rows)}"
    )


def _condition_table(definition: Definition) -> str:
    """Return the kind's table of conditions, which their module keeps as its documentation."""
    text = (conditions.__doc__ or "").partition(f"\n{definition.resource.kind}\n\n")[2]
    return text.partition("\n\n")[0].replace("| type |", "| condition |") + "\n"


def _entries(model: type[BaseModel], prefix: str, section: str) -> Iterator[FieldEntry]:
    docs = attribute_docs(model)
    for name, info in model.model_fields.items():
        alias = info.alias or name
        kind = field_type(info.annotation, tuple(info.metadata))
        default = default_of(info)
        yield FieldEntry(
            path=f"{prefix}{alias}",
            words=_words(kind),
            default="" if default is None else str(default).lower() if isinstance(default, bool) else str(default),
            meaning=docs[name],
            required=info.is_required(),
            section=section or alias,
            model=model,
        )
        suffix = ""
        while kind.model is None and kind.item is not None:
            suffix += "[]" if kind.origin is tuple else ".<name>"
            kind = kind.item
        if kind.model is not None:
            yield from _entries(kind.model, f"{prefix}{alias}{suffix}.", section or alias)


def _words(kind: FieldType) -> str:
    for each in kind.metadata:
        if isinstance(each, WithJsonSchema):
            pattern = str((each.json_schema or {}).get("pattern", ""))
            return _PATTERNS.get(pattern, "string") + _range(kind)
    if kind.model is not None:
        return "object"
    if kind.enum is not None:
        return " or ".join(f"`{member.value}`" for member in kind.enum)
    if kind.origin is tuple and kind.item is not None:
        return f"list of {_words(kind.item)}"
    if kind.origin is Mapping and kind.item is not None:
        return f"map of {_words(kind.item)}"
    return {str: "string", bool: "boolean", int: "integer", float: "number"}[kind.origin] + _range(kind)


def _range(kind: FieldType) -> str:
    """Return the smallest and the largest value of an amount or a number, as `, 1m to 8760h`."""
    least = most = ""
    for each in kind.metadata:
        match each:
            case Bounds():
                least, most = each.least, each.most
            case annotated_types.Ge(ge=limit):
                least = str(limit)
            case annotated_types.Gt(gt=limit):
                least = f"more than {limit}"
            case annotated_types.Le(le=limit):
                most = str(limit)
            case _:
                pass
    if least and most:
        return f", {least} to {most}"
    return f", at least {least}" if least else ""


def _introduction(section: str) -> str:
    kind = field_type(fields_by_alias(_ENGINE.spec)[section].annotation)
    while kind.model is None and kind.item is not None:
        kind = kind.item
    return summary(kind.model) if kind.model is not None else ""


def _row(entry: FieldEntry, *more: str) -> str:
    depth = entry.path.partition(".")[2]
    name = f"**`{depth}`**" if entry.required else f"`{depth}`"
    default = f"`{entry.default}`" if entry.default else ""
    cells = (name, entry.words, default, entry.meaning, *more)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"


def _example(path: str, examples: Sequence[Mapping[str, Any]]) -> str:
    steps = path.replace("[]", ".[]").split(".")
    for document in examples:
        for value in _values_at(document, steps):
            return _flow(value)
    raise LookupError(f"no example sets {path}")


def _values_at(value: Any, steps: Sequence[str]) -> Iterator[Any]:  # noqa: ANN401 - any YAML value
    if not steps:
        yield value
        return
    step, rest = steps[0], steps[1:]
    if step == "[]" and isinstance(value, list):
        inner = value
    elif step == "<name>" and isinstance(value, dict):
        inner = list(value.values())
    else:
        inner = [value[step]] if isinstance(value, dict) and step in value else []
    for each in inner:
        yield from _values_at(each, rest)


def _flow(value: Any, depth: int = 0) -> str:  # noqa: ANN401 - any YAML value
    """Write a value on one line, deep structures cut to `...`."""
    if isinstance(value, dict):
        inner = ", ".join(f"{name}: {_flow(each, depth + 1)}" for name, each in value.items())
        return f"{{{inner}}}" if depth == 0 or len(inner) <= _SHORT else "{...}"
    if isinstance(value, list):
        inner = ", ".join(_flow(each, depth + 1) for each in value)
        return f"[{inner}]" if len(inner) <= _SHORT else "[...]"
    if isinstance(value, bool):
        return str(value).lower()
    # A string that YAML would read as a number needs quotes.
    return f'"{value}"' if isinstance(value, str) and value.replace(".", "").isdigit() else str(value)


_SHORT: Final = 40
