"""ONNX Runtime execution providers as data: the names that a target may use, and where a pod for each can run.

The operator reads a provider's node labels and resource, and the runtime reads its package and options. Neither has
code for a particular provider.
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
        name: Name in a target's `provider` ("openvino").
        wheel: Python package that contains the provider.
        execution_provider: Name in ONNX Runtime ("OpenVINOExecutionProvider").
        compiles: Whether it compiles whole subgraphs at load, so that the stored model must keep standard operators.
        resource: Kubernetes extended resource of its device; None if it runs on the CPU.
        architectures: CPU architectures as Kubernetes spells them ("amd64").
        options: Default provider options, which a target can override.
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
    """Return the provider with this name; None selects the default one.

    Raises:
        SpecError: No provider has this name. The message lists the existing ones.
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
