"""EnginePolicies of a file, for plans that are made before anything is applied."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from enginesmith_contract.errors import PlanRefusedError, SpecError
from enginesmith_contract.text import one_line
from enginesmith_operator.api.engine_policy import EnginePolicy
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.kinds import ENGINE_POLICY, NAMESPACE
from enginesmith_operator.planning.policies import find_violations, select_policies, strictest_gpu_limit
from enginesmith_operator.planning.policy_defaults import with_defaults

__all__ = ["PolicyFile", "no_policies", "policies_of", "read_policy_file", "refuse_forbidden", "warn_of_gpus"]

_REMEDY = "save them with: kubectl get enginepolicies,namespaces -o yaml"


class PolicyFile:
    """Policies, and the labels of the namespaces that the file also has."""

    def __init__(self, policies: tuple[EnginePolicy, ...], labels: dict[str, dict[str, str]]) -> None:
        self._policies = policies
        self._labels = labels

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a policy nor a namespace; a cluster without policies still has namespaces."""
        return not (self._policies or self._labels)

    def of_namespace(self, namespace: str) -> tuple[EnginePolicy, ...]:
        """Return the policies that apply to a namespace; one that is not in the file is assumed to have every label."""
        return select_policies(self._policies, namespace, self._labels.get(namespace))


def refuse_forbidden(engine: InferenceEngine, policies: tuple[EnginePolicy, ...]) -> None:
    """Refuse what the cluster would not admit, with everything that the policies forbid.

    Raises:
        PlanRefusedError: a policy forbids a field of the spec.
    """
    # Admission checks one policy at a time, without the defaults of others.
    alone = (find_violations(with_defaults(engine, [one])[0].spec, [one]) for one in policies)
    together = find_violations(with_defaults(engine, policies)[0].spec, policies)
    violations = tuple(dict.fromkeys((*chain.from_iterable(alone), *together)))
    if violations:
        why = "\n  ".join(["", *(one.sentence() for one in violations)])
        raise PlanRefusedError("the cluster does not admit it", where=engine.metadata.name, why=why)


def warn_of_gpus(asked: Mapping[str, int], policies: PolicyFile) -> Iterator[str]:
    """Yield a sentence for each namespace whose documents ask together for more GPUs than it may have.

    Args:
        asked: number of GPUs by namespace.
        policies: that hold.
    """
    for namespace, gpus in sorted(asked.items()):
        strictest = strictest_gpu_limit(policies.of_namespace(namespace))
        if strictest is not None and strictest[0] < gpus:
            most, policy = strictest
            yield (
                f"namespace {namespace}: the documents ask for {gpus} GPUs together, EnginePolicy {policy} allows "
                f"{most}: replicas without a free one wait"
            )


def no_policies() -> PolicyFile:
    """Return a file without policies."""
    return PolicyFile((), {})


def read_policy_file(path: Path) -> PolicyFile:
    """Return the policies of a YAML or JSON file: documents, or the list that `kubectl get -o yaml` prints.

    Raises:
        SpecError: the file cannot be read, or is empty.
    """
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        why = one_line(str(error))
        raise SpecError("the policies cannot be read", where=str(path), why=why, remedy=_REMEDY) from error
    found = policies_of(
        [item for document in documents if document is not None for item in _items(document)], str(path)
    )
    if found.is_empty:
        raise SpecError("the file has no EnginePolicy and no Namespace", where=str(path), remedy=_REMEDY)
    return found


def policies_of(items: Sequence[Mapping[str, Any]], where: str) -> PolicyFile:
    """Return the policies among EnginePolicies and Namespaces.

    Raises:
        SpecError: there is another object, or an invalid policy.
    """
    policies: list[EnginePolicy] = []
    labels: dict[str, dict[str, str]] = {}
    for item in items:
        kind = item.get("kind")
        if kind == NAMESPACE.kind:
            metadata = item.get("metadata") or {}
            labels[str(metadata.get("name"))] = dict(metadata.get("labels") or {})
        elif kind == ENGINE_POLICY.kind:
            policies.append(_policy(item, where))
        else:
            why = f"it has an object of kind {kind}" if kind else "an item is not an object"
            raise SpecError("not a list of EnginePolicies", where=where, why=why, remedy=_REMEDY)
    return PolicyFile(tuple(policies), labels)


def _policy(item: Mapping[str, Any], where: str) -> EnginePolicy:
    try:
        return EnginePolicy.model_validate(item, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = f"{'.'.join(str(part) for part in first['loc'])}: {one_line(first['msg'])}"
        raise SpecError("the EnginePolicy is invalid", where=where, why=why) from error


def _items(document: object) -> list[dict[str, Any]]:
    """Return the objects of a document; one that is no object is one without a kind."""
    items = document.get("items") if isinstance(document, dict) else None
    found = items if isinstance(items, list) else [document]
    return [item if isinstance(item, dict) else {} for item in found]
