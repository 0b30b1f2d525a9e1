"""What a cluster's objects need of an engine store, from `kubectl get inferenceengines,enginebuilds -A -o json`.

A status names what serves, what shall serve and what is built; whatever in it looks like a key or a digest is in use,
so that a field which a later release adds protects its engines here too. Builds that ended tell which engines a target
had before: the newest of them stay, as the InferenceEngine's `spec.retention` says.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError

from enginesmith_contract.errors import SpecError
from enginesmith_operator.api.engine_build import BuildPhase
from enginesmith_operator.api.inference_engine import KIND as ENGINE_KIND
from enginesmith_operator.api.serving import RetentionSpec
from enginesmith_runtime.store.sweep import Claims

__all__ = ["claims_of", "read_objects"]

_BUILD_KIND: Final = "EngineBuild"
_ENDED: Final = frozenset({BuildPhase.SUCCEEDED.value, BuildPhase.FAILED.value})
# Keys and digests, and the first 20 digits of them that names have.
_WORD: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{20,64}(?![0-9a-f])")

Document = Mapping[str, Any]
_Target = tuple[str, str, str]


def read_objects(text: str, where: str) -> tuple[Document, ...]:
    """Return the InferenceEngines and EngineBuilds of a List, or of several objects' documents.

    Raises:
        enginesmith_contract.errors.SpecError: it is no JSON, or holds an object of another kind.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SpecError(
            "the cluster's objects cannot be read",
            where=where,
            why=str(error),
            remedy="give what `kubectl get inferenceengines,enginebuilds -A -o json` prints",
            reason="ObjectsUnreadable",
        ) from error
    items = document.get("items") if isinstance(document, dict) else None
    found = items if isinstance(items, list) else [document]
    for item in found:
        if not isinstance(item, dict) or item.get("kind") not in (ENGINE_KIND, _BUILD_KIND):
            raise SpecError(
                "this is neither an InferenceEngine nor an EngineBuild",
                where=where,
                why=f"its kind is {item.get('kind') if isinstance(item, dict) else type(item).__name__}",
                remedy="give what `kubectl get inferenceengines,enginebuilds -A -o json` prints",
                reason="ObjectsUnreadable",
            )
    return tuple(found)


def claims_of(objects: Iterable[Document]) -> Claims:
    """Return what these objects need."""
    every = tuple(objects)
    words: set[str] = set()
    retentions: dict[tuple[str, str], RetentionSpec] = {}
    for one in every:
        if one["kind"] == ENGINE_KIND:
            words |= set(_words(one.get("status")))
            retentions[_address(one)] = _retention(one)
        elif _phase(one) not in _ENDED:
            words |= {*_words(one.get("spec")), *_words(one.get("status"))}
    history = _history(one for one in every if one["kind"] == _BUILD_KIND and _phase(one) in _ENDED)
    return Claims(words=frozenset(words), keep_for_seconds=dict(_kept(history, retentions, words)))


def _kept(
    history: Mapping[_Target, list[str]], retentions: Mapping[tuple[str, str], RetentionSpec], serving: set[str]
) -> Iterator[tuple[str, float]]:
    ages: dict[str, float] = {}
    for (namespace, engine, _), keys in history.items():
        retention = retentions.get((namespace, engine))
        if retention is None:
            continue
        earlier = [key for key in keys if key not in serving]
        beyond = float(retention.keep_for_seconds or 0.0)
        for rank, key in enumerate(earlier):
            age = math.inf if rank < retention.keep_engines else beyond
            # Several targets may have had one engine: the one that keeps it longest decides.
            ages[key] = max(ages.get(key, 0.0), age)
    yield from ages.items()


def _history(builds: Iterable[Document]) -> dict[_Target, list[str]]:
    """Return the keys that each target's builds stored, newest first, each once."""
    dated: dict[_Target, list[tuple[str, str]]] = defaultdict(list)
    for build in builds:
        spec, metadata = build.get("spec") or {}, build["metadata"]
        key = (spec.get("request") or {}).get("engineKey", "")
        moment = str((build.get("status") or {}).get("finishedAt") or metadata.get("creationTimestamp") or "")
        for owner in metadata.get("ownerReferences") or ():
            if owner.get("kind") == ENGINE_KIND:
                target = (metadata.get("namespace", ""), owner["name"], str(spec.get("target", "")))
                dated[target].append((moment, key))
    return {
        target: list(dict.fromkeys(key for _, key in sorted(entries, reverse=True)))
        for target, entries in dated.items()
    }


def _retention(engine: Document) -> RetentionSpec:
    try:
        return RetentionSpec.model_validate((engine.get("spec") or {}).get("retention") or {}, by_name=False)
    except ValidationError:
        # Written by another release: if in doubt, keep the engine.
        return RetentionSpec(keep_engines=100)


def _address(one: Document) -> tuple[str, str]:
    metadata = one["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _phase(build: Document) -> str:
    return str((build.get("status") or {}).get("phase", ""))


def _words(value: object) -> Iterator[str]:
    yield from _WORD.findall(json.dumps(value))
