"""ONNX Runtime execution providers, as data: what a target may name, and where a pod for it can run.

The operator reads a provider's node labels and resource, the runtime its package and options; neither has code for a
particular one.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import yaml

from enginesmith_contract.errors import SpecError
from enginesmith_contract.record import Record

__all__ = ["Provider", "find_provider", "list_providers"]


class Provider(Record):
    """One execution provider.

    Attributes:
        name: as a target's `provider` spells it ("openvino").
        wheel: the package that brings it.
        execution_provider: ONNX Runtime's own name ("OpenVINOExecutionProvider").
        compiles: whether it compiles whole subgraphs at load, so that the stored model must keep standard operators.
        resource: Kubernetes extended resource of its device; None: it runs on the CPU.
        architectures: as Kubernetes spells them ("amd64").
        options: provider options unless a target says otherwise.
    """

    name: str
    wheel: str
    execution_provider: str
    compiles: bool = False
    resource: str | None = None
    architectures: tuple[str, ...]
    options: Mapping[str, str] = {}


@cache
def list_providers() -> tuple[Provider, ...]:
    """Return every known provider, the default one first."""
    text = files("enginesmith_contract").joinpath("providers.yaml").read_text(encoding="utf-8")
    return tuple(Provider.model_validate(entry) for entry in yaml.safe_load(text))


def find_provider(name: str | None) -> Provider:
    """Return the provider of this name; None is the default one.

    Raises:
        SpecError: no provider has this name; the message lists those that exist.
    """
    known = list_providers()
    if name is None:
        return known[0]
    for provider in known:
        if provider.name == name:
            return provider
    names = ", ".join(provider.name for provider in known)
    raise SpecError(
        "no such execution provider",
        where=f"provider {name!r}",
        why=f"known are {names}",
        remedy="name one of them, or add yours to providers.yaml",
        reason="UnknownProvider",
    )
