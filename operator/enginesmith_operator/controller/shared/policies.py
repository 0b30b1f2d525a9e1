"""The EnginePolicies that hold for a namespace, from the cache of seen objects."""

import logging
from typing import Final, NamedTuple

from pydantic import ValidationError

from enginesmith_contract.text import one_line
from enginesmith_operator.api.engine_policy import EnginePolicy
from enginesmith_operator.controller.shared.cache import Address, ObjectCache
from enginesmith_operator.kinds import ENGINE_POLICY, NAMESPACE
from enginesmith_operator.planning.policies import select_policies
from enginesmith_operator.planning.refusals import Refusal

__all__ = ["KnownPolicies", "PolicyReader"]

_LOGGER: Final = logging.getLogger(__name__)


class KnownPolicies(NamedTuple):
    """Policies of one namespace, and what is wrong with those that cannot be read."""

    policies: tuple[EnginePolicy, ...]
    unreadable: tuple[Refusal, ...]


class PolicyReader:
    """Reads the EnginePolicies of the cache, each version once."""

    def __init__(self, cache: ObjectCache) -> None:
        self._cache = cache
        self._read: dict[str, tuple[str, EnginePolicy | Refusal]] = {}

    def of_namespace(self, namespace: str) -> KnownPolicies:
        """Return the policies that hold for a namespace."""
        everything = self._all()
        if not everything:
            return KnownPolicies((), ())
        found = self._cache.find(Address(NAMESPACE.kind, "", namespace))
        labels = None if found is None else found.document()["metadata"].get("labels") or {}
        readable = [one for one in everything if isinstance(one, EnginePolicy)]
        unreadable = tuple(one for one in everything if isinstance(one, Refusal))
        return KnownPolicies(select_policies(readable, namespace, labels), unreadable)

    def _all(self) -> list[EnginePolicy | Refusal]:
        stored = {one.address.name: one for one in self._cache.of_kind(ENGINE_POLICY.kind)}
        self._read = {name: read for name, read in self._read.items() if name in stored}
        for name, one in stored.items():
            if name not in self._read or self._read[name][0] != one.version:
                self._read[name] = (one.version, _read(name, one.document()["spec"]))
        return [self._read[name][1] for name in sorted(self._read)]


def _read(name: str, spec: object) -> EnginePolicy | Refusal:
    try:
        return EnginePolicy.model_validate({"metadata": {"name": name}, "spec": spec}, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        found = f"EnginePolicy {name} cannot be read: {where}: {one_line(first['msg'])}"
        _LOGGER.warning("%s", found)
        return Refusal(rule="PolicyUnreadable", found=found, wanted="correct it; it may forbid anything until then")
