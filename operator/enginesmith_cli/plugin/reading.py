"""Which objects the plugin's commands read."""

import sys
from typing import Final

from enginesmith_cli.plugin.kubectl import ClusterCallError, Found, Kubectl
from enginesmith_contract.errors import SpecError
from enginesmith_operator.objects.labels import MANAGED_BY, MANAGER

__all__ = ["KINDS", "engine_name", "kind_and_name", "read_family", "say_refused"]

KINDS = ("inferenceengines.enginesmith.io", "enginebuilds.enginesmith.io")
_MADE = f"{MANAGED_BY}={MANAGER}"
_ENGINE: Final = "InferenceEngine"
_SPELLINGS: Final = {
    **dict.fromkeys(("", "engine", "ie", "inferenceengine", "inferenceengines"), _ENGINE),
    **dict.fromkeys(("build", "eb", "enginebuild", "enginebuilds"), "EngineBuild"),
}


def kind_and_name(word: str) -> tuple[str, str]:
    """Return the kind and the name that a word names as kubectl does: NAME, ie/NAME, or build/NAME.

    Raises:
        SpecError: it names another kind, or no name.
    """
    head, _, name = word.rpartition("/")
    kind = _SPELLINGS.get(head.lower().removesuffix(".enginesmith.io"))
    if kind and name:
        return kind, name
    why = "write NAME or ie/NAME for an InferenceEngine, build/NAME for an EngineBuild"
    raise SpecError("it names no object of Enginesmith", where=word, why=why, reason="Usage")


def engine_name(word: str) -> str:
    """Return the name of an InferenceEngine.

    Raises:
        SpecError: the word names something else.
    """
    kind, name = kind_and_name(word)
    if kind == _ENGINE:
        return name
    remedy = f"explain it with: kubectl enginesmith explain {word}"
    raise SpecError("the name of an InferenceEngine is expected", where=word, remedy=remedy, reason="Usage")


def say_refused(found: Found) -> Found:
    """Say on standard error what could not be read; return what was."""
    for line in found.refused:
        print(f"enginesmith: not shown: {line}", file=sys.stderr)
    return found


def read_family(kubectl: Kubectl, *, events: bool = False) -> Found:
    """Return engines, builds, and the Jobs and pods of both; what may not be read is named, and the rest shown.

    Raises:
        ClusterCallError: the engines cannot be read.
    """
    found = [kubectl.get(*KINDS)]
    wanted = [(("jobs.batch", "pods"), _MADE), *([(("events",), "")] if events else [])]
    for kinds, selector in wanted:
        try:
            found.append(kubectl.get(*kinds, selector=selector))
        except ClusterCallError as error:
            found.append(Found(items=(), refused=(f"{' and '.join(kinds)}: {error.sentence()}",)))
    return Found(
        items=tuple(item for one in found for item in one.items),
        refused=tuple(line for one in found for line in one.refused),
    )
