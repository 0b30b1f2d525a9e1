"""Defaults that EnginePolicies give to fields which an InferenceEngine leaves out. Pure.

They are part of the plan and never written into the document: `kubectl apply` of an unchanged file changes nothing.
Where two policies give different defaults for one field, none of them is used and nothing new is planned.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from enginesmith_operator.api.engine_policy import EnginePolicy, PolicyDefaults
from enginesmith_operator.api.engine_status import InheritedDefault
from enginesmith_operator.api.inference_engine import InferenceEngine, InferenceEngineSpec
from enginesmith_operator.api.quantities import spell_bytes, spell_duration
from enginesmith_operator.api.store import StoreSpec

__all__ = ["DefaultConflict", "find_conflicts", "with_defaults"]


class _Field(NamedTuple):
    """One field that may have a default.

    Attributes:
        part: name of the part of a spec that has it; empty: the spec itself.
        name: in Python; the same in `PolicyDefaults` and in the spec, but for the precision's word.
        path: as a user writes it.
        of_policy: reads the default; None: there is none.
    """

    part: str
    name: str
    path: str
    of_policy: Callable[[PolicyDefaults], Any]
    spell: Callable[[Any], str]


def _spell_store(value: StoreSpec) -> str:
    return json.dumps(value.model_dump(mode="json", by_alias=True, exclude_defaults=True), sort_keys=True)


_FIELDS: Final = (
    _Field("precision", "default", "spec.precision", lambda one: one.precision, str),
    _Field("build", "timeout_seconds", "spec.build.timeout", lambda one: one.build.timeout_seconds, spell_duration),
    _Field(
        "build",
        "workspace_bytes",
        "spec.build.workspace",
        lambda one: one.build.workspace_bytes,
        lambda value: str(spell_bytes(value)),
    ),
    _Field("verification", "limit", "spec.verification.limit", lambda one: one.verification.limit, "{:g}".format),
    _Field(
        "verification",
        "agreement",
        "spec.verification.agreement",
        lambda one: one.verification.agreement,
        "{:g}".format,
    ),
    _Field("", "store", "spec.store", lambda one: one.store, _spell_store),
)


class DefaultConflict(NamedTuple):
    """A field for which policies give different defaults.

    Attributes:
        policy: the first of them by name.
        text: path of the field, and what each policy says.
    """

    policy: str
    text: str


def with_defaults(
    engine: InferenceEngine, policies: Iterable[EnginePolicy]
) -> tuple[InferenceEngine, tuple[InheritedDefault, ...]]:
    """Return the engine with the defaults of its namespace's policies, and those that it got."""
    spec, inherited = engine.spec, []
    for field, given in _given(spec, tuple(policies)):
        first = next(iter(given.values()))
        if any(value != first for value in given.values()):
            continue
        spec = _with(spec, field, first)
        inherited.append(InheritedDefault(field=field.path, value=field.spell(first), policy=", ".join(given)))
    return (engine if not inherited else engine.model_copy(update={"spec": spec})), tuple(inherited)


def find_conflicts(spec: InferenceEngineSpec, policies: Iterable[EnginePolicy]) -> Iterator[DefaultConflict]:
    """Yield the omitted fields for which policies give different defaults."""
    for field, given in _given(spec, tuple(policies)):
        (first, value), *others = given.items()
        if any(other != value for _, other in others):
            said = " and ".join(f"{field.spell(other)} of EnginePolicy {name}" for name, other in others)
            yield DefaultConflict(first, f"{field.path}: its default {field.spell(value)} is not the default {said}")


def _given(spec: InferenceEngineSpec, policies: tuple[EnginePolicy, ...]) -> Iterator[tuple[_Field, Mapping[str, Any]]]:
    """Yield each omitted field that has a default, with the defaults by the policy's name."""
    for field in _FIELDS:
        found = {one.name: value for one in policies if (value := field.of_policy(one.spec.defaults)) is not None}
        if found and _is_omitted(spec, field):
            yield field, found


def _is_omitted(spec: InferenceEngineSpec, field: _Field) -> bool:
    holder = getattr(spec, field.part) if field.part else spec
    return field.name not in holder.model_fields_set or getattr(holder, field.name) is None


def _with(spec: InferenceEngineSpec, field: _Field, value: object) -> InferenceEngineSpec:
    if not field.part:
        return spec.model_copy(update={field.name: value})
    part = getattr(spec, field.part).model_copy(update={field.name: value})
    return spec.model_copy(update={field.part: part})
