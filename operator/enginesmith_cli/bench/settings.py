"""A candidate: values that replace fields of the document, and their text form."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import yaml
from pydantic import ValidationError

from enginesmith_contract.errors import SpecError
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.serving import ServingSpec

__all__ = ["FROM_FILE", "Settings"]

Value = int | str | Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Fields that replace the document's; no field means that the document's value stays.

    Attributes:
        serving: fields of `spec.serving`, spelled as in YAML.
        backend_options: of the target.
    """

    serving: Mapping[str, Value] = field(default_factory=dict)
    backend_options: Mapping[str, str] = field(default_factory=dict)

    def with_changes(self, other: "Settings") -> "Settings":
        """Return these settings, overridden by those of `other`."""
        return Settings(
            serving={**self.serving, **other.serving}, backend_options={**self.backend_options, **other.backend_options}
        )

    def applied_to(self, engine: InferenceEngine, target: str) -> InferenceEngine:
        """Return the document with these settings for one of its targets.

        Raises:
            SpecError: the document cannot have them.
        """
        spec = engine.spec
        try:
            serving = ServingSpec.model_validate(
                {**spec.serving.model_dump(by_alias=True, exclude_unset=True), **self.serving}
            )
        except ValidationError as error:
            why = error.errors(include_url=False)[0]["msg"]
            raise SpecError("these settings do not go together", where=f"{target}: {self.label}", why=why) from error
        targets = tuple(
            one.model_copy(update={"backend_options": {**one.backend_options, **self.backend_options}})
            if one.name == target
            else one
            for one in spec.targets
        )
        return engine.model_copy(update={"spec": spec.model_copy(update={"serving": serving, "targets": targets})})

    @property
    def label(self) -> str:
        """One line, such as "instances=2 intraOpThreads=1"."""
        fields = _flat({**self.serving, **self.backend_options})
        return " ".join(f"{name}={value}" for name, value in fields.items()) or "as in the file"

    def document(self, target: str) -> dict[str, object]:
        """Return the part of an InferenceEngine that has these settings."""
        spec: dict[str, object] = {}
        if self.serving:
            spec["serving"] = dict(self.serving)
        if self.backend_options:
            spec["targets"] = [{"name": target, "backendOptions": dict(self.backend_options)}]
        return {"spec": spec} if spec else {}

    def yaml(self, target: str) -> str:
        """Return that part as YAML; empty where nothing differs from the document."""
        document = self.document(target)
        return str(yaml.safe_dump(document, sort_keys=False)) if document else ""


FROM_FILE: Final = Settings()
"""The document as it is."""


def _flat(fields: Mapping[str, object]) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            result.update({f"{name}.{inner}": one for inner, one in _flat(value).items()})
        else:
            result[name] = value
    return result
