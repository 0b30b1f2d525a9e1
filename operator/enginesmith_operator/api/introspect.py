"""Facts about the API's types: the fields at a path and the parts of an annotation.

Shared by the error messages ("did you mean") and the generators of the CRDs and the reference pages.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

__all__ = ["FieldType", "field_type", "fields_by_alias", "model_at", "places_of"]


class FieldType(NamedTuple):
    """An annotation taken apart.

    Attributes:
        origin: Model, enum, `tuple`, `Mapping`, `Literal`, or a plain type.
        item: Type of a tuple's elements or a mapping's values.
        key: Type of a mapping's keys.
        metadata: Constraints and schemas attached to the annotation, outermost last.
        optional: Whether None is allowed.
        values: Values of a Literal.
    """

    origin: Any
    item: "FieldType | None" = None
    key: "FieldType | None" = None
    metadata: tuple[Any, ...] = ()
    optional: bool = False
    values: tuple[str, ...] = ()

    @property
    def model(self) -> type[BaseModel] | None:
        """Return the model that the annotation names; None if it is not a model."""
        return self.origin if isinstance(self.origin, type) and issubclass(self.origin, BaseModel) else None

    @property
    def enum(self) -> type[StrEnum] | None:
        """Return the enum that the annotation names; None if it is not an enum."""
        return self.origin if isinstance(self.origin, type) and issubclass(self.origin, StrEnum) else None


def field_type(annotation: Any, metadata: tuple[Any, ...] = ()) -> FieldType:  # noqa: ANN401 - any annotation
    """Take an annotation apart."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return field_type(arguments[0], (*_flat(arguments[1:]), *metadata))
    if origin in {Union, UnionType} and NoneType in arguments:
        rest = [argument for argument in arguments if argument is not NoneType]
        if len(rest) == 1:
            return field_type(rest[0], metadata)._replace(optional=True)
    if origin is Literal:
        return FieldType(str, metadata=metadata, values=arguments)
    if origin is tuple:
        return FieldType(tuple, item=field_type(arguments[0]), metadata=metadata)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return FieldType(Mapping, item=field_type(arguments[1]), key=field_type(arguments[0]), metadata=metadata)
    return FieldType(annotation, metadata=metadata)


def fields_by_alias(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return a model's fields by their YAML spelling, in the order of the class."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def model_at(root: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel] | None:
    """Return the model whose fields are at `path`; None if there is none."""
    here: FieldType | None = FieldType(root)
    for step in path:
        if here is None:
            return None
        if here.model is not None:
            info = fields_by_alias(here.model).get(str(step))
            here = None if info is None else field_type(info.annotation)
        else:
            here = here.item
    return here.model if here is not None else None


@cache
def places_of(root: type[BaseModel]) -> dict[str, tuple[str, ...]]:
    """Return the paths of every field by its name, to say where a misplaced field belongs."""
    found: dict[str, list[str]] = {}
    for path, alias in _walk(root, ""):
        found.setdefault(alias, []).append(path)
    return {alias: tuple(paths) for alias, paths in found.items()}


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for alias, info in fields_by_alias(model).items():
        path = f"{prefix}{alias}"
        yield path, alias
        kind, suffix = field_type(info.annotation), "."
        while kind.model is None and kind.item is not None:
            suffix = ("[]" if kind.origin is tuple else ".<name>") + suffix
            kind = kind.item
        if kind.model is not None:
            yield from _walk(kind.model, path + suffix)


def _flat(metadata: tuple[Any, ...]) -> Iterator[Any]:
    for each in metadata:
        if isinstance(each, FieldInfo):
            yield from each.metadata
        else:
            yield each
