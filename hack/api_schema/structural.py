"""Generates a Kubernetes structural schema from a type.

pydantic's own JSON schema has `$ref` and `anyOf` with null, which structural schemas forbid (Kubernetes, "Custom
resources: specifying a structural schema"), so the types are walked here. Every string, list and map gets a bound:
without a bound the API server assumes the largest possible value when it estimates the cost of a CEL rule, and refuses
the rule.
"""

from collections.abc import Mapping
from typing import Any, Final

import annotated_types
from pydantic import BaseModel, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from api_schema.descriptions import attribute_docs
from api_schema.rules import MAP_LISTS, OVERRIDES, RULES, UNDEFAULTED
from enginesmith_operator.api.bounds import Bounds
from enginesmith_operator.api.introspect import FieldType, field_type, fields_by_alias

__all__ = ["Schema", "default_of", "schema_of_model"]

Schema = dict[str, Any]

_MAX_LENGTH: Final = 4096
_MAX_ITEMS: Final = 256
_MAX_PROPERTIES: Final = 256
_LARGEST_SAID: Final = 1 << 30
"""Bounds beyond this only keep numbers within 32 bits, so descriptions leave them out."""


def schema_of_model(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """Return the schema of a model, fields in the order of the class.

    Args:
        model: Model of the contract or of a kind.
        defaults: Whether the API server sets omitted fields to their defaults. It must not in a status, which would
            then differ from what the operator wrote, nor in entries of lists, which would
            differ from what the user applied.
    """
    docs = attribute_docs(model)
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for alias, info in fields_by_alias(model).items():
        name = next(name for name, each in model.model_fields.items() if each is info)
        properties[alias] = _schema_of_field(model, alias, info, docs[name], defaults=defaults)
        if info.is_required():
            required.append(alias)
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    if model in RULES:
        schema["x-kubernetes-validations"] = [rule._asdict() for rule in RULES[model]]
    return schema


def default_of(info: FieldInfo) -> Any:  # noqa: ANN401 - any JSON value
    """Return a field's default as JSON; None if it has none, or is a structure whose fields have defaults."""
    if info.default is PydanticUndefined or info.default is None:
        return None
    if isinstance(info.default, BaseModel | Mapping | tuple):
        return None
    holder = info.default
    for each in info.metadata:
        serializer = getattr(each, "func", None) if type(each).__name__ == "PlainSerializer" else None
        if serializer is not None:
            return serializer(holder)
    return getattr(holder, "value", holder)


def _schema_of_field(
    model: type[BaseModel], alias: str, info: FieldInfo, description: str, *, defaults: bool
) -> Schema:
    kind = field_type(info.annotation, tuple(info.metadata))
    override = OVERRIDES.get((model, alias))
    typed = override if override is not None else _schema_of_type(kind, defaults=defaults)
    schema: Schema = {"description": f"{description}{_range_sentence(kind, typed)}", **typed}
    key = MAP_LISTS.get((model, alias))
    if key is not None:
        schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    default = default_of(info) if defaults else None
    if default is not None and override is None and (model, alias) not in UNDEFAULTED:
        schema["default"] = default
    return schema


def _range_sentence(kind: FieldType, schema: Mapping[str, Any]) -> str:
    """Return the range of an amount or a number as a sentence, since `kubectl explain` shows no bounds."""
    for bounds in kind.metadata:
        if isinstance(bounds, Bounds):
            return f" Range: {bounds.least} to {bounds.most}."
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is None or most is None or most > _LARGEST_SAID:
        return ""
    least = f"more than {least}" if schema.get("exclusiveMinimum") else least
    return f" Range: {least} to {most}."


def _schema_of_type(kind: FieldType, *, defaults: bool) -> Schema:
    for each in reversed(kind.metadata):
        if isinstance(each, WithJsonSchema):
            rules = [bounds.rule() for bounds in kind.metadata if isinstance(bounds, Bounds)]
            return dict(each.json_schema or {}) | ({"x-kubernetes-validations": rules} if rules else {})
    if kind.model is not None:
        return schema_of_model(kind.model, defaults=defaults)
    if kind.enum is not None:
        return {"type": "string", "enum": [member.value for member in kind.enum]}
    if kind.item is not None:
        return _schema_of_collection(kind, kind.item, defaults=defaults)
    return _schema_of_scalar(kind)


def _schema_of_collection(kind: FieldType, item: FieldType, *, defaults: bool) -> Schema:
    is_list = kind.origin is tuple
    # A client-side merge (`kubectl apply`) replaces lists as a whole. With defaults in entries it would send them again
    # each time, and GitOps tools would always show a difference.
    values = _schema_of_type(item, defaults=defaults and not is_list) | ({"nullable": True} if item.optional else {})
    if is_list:
        items = {"type": "array", "items": values, "maxItems": _MAX_ITEMS}
        return items | _bounds(kind, "minItems", "maxItems")
    mapping = {"type": "object", "additionalProperties": values, "maxProperties": _MAX_PROPERTIES}
    return mapping | _bounds(kind, "minProperties", "maxProperties")


def _schema_of_scalar(kind: FieldType) -> Schema:
    if kind.origin is str:
        return {"type": "string", "maxLength": _MAX_LENGTH} | _bounds(kind, "minLength", "maxLength")
    if kind.origin is bool:
        return {"type": "boolean"}
    if kind.origin is int:
        return {"type": "integer", "format": "int64"} | _bounds(kind, "", "")
    if kind.origin is float:
        return {"type": "number"} | _bounds(kind, "", "")
    raise TypeError(f"no structural schema for {kind.origin!r}")


def _bounds(kind: FieldType, shortest: str, longest: str) -> Schema:
    bounds: Schema = {}
    for each in kind.metadata:
        match each:
            case annotated_types.MinLen(min_length=length):
                bounds[shortest] = length
            case annotated_types.MaxLen(max_length=length):
                bounds[longest] = length
            case annotated_types.Ge(ge=limit):
                bounds["minimum"] = limit
            case annotated_types.Gt(gt=limit):
                bounds |= {"minimum": limit, "exclusiveMinimum": True}
            case annotated_types.Le(le=limit):
                bounds["maximum"] = limit
            case _ if getattr(each, "pattern", None):
                bounds["pattern"] = each.pattern
            case _:
                pass
    return bounds
