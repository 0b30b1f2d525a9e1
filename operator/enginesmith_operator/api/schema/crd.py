"""The CustomResourceDefinition of `InferenceEngine`."""

from typing import Any, Final

import yaml
from typing_extensions import override

from enginesmith_operator.api.inference_engine import KIND, InferenceEngine, InferenceEngineSpec
from enginesmith_operator.api.introspect import summary
from enginesmith_operator.api.schema.rules import ROOT_RULES
from enginesmith_operator.api.schema.structural import Schema, schema_of_model

__all__ = ["crd", "crd_yaml"]

_GROUP: Final = "enginesmith.io"
_PLURAL: Final = "inferenceengines"
_HEADER: Final = "# Written by hack/generate-crds from operator/enginesmith_operator/api; do not edit.\n"

_CONDITION: Final[Schema] = {
    "type": "object",
    "required": ["type", "status", "lastTransitionTime", "reason", "message"],
    "properties": {
        "type": {"type": "string", "maxLength": 316},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        "lastTransitionTime": {"type": "string", "format": "date-time", "maxLength": 64},
        "reason": {"type": "string", "minLength": 1, "maxLength": 1024},
        "message": {"type": "string", "maxLength": 32768},
    },
}

# What columns and conditions read; the rest of the status is kept as the operator writes it.
_STATUS: Final[Schema] = {
    "description": "What the operator found and did; never written by a user.",
    "type": "object",
    "x-kubernetes-preserve-unknown-fields": True,
    "properties": {
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        "serving": {"description": "Targets that serve, of all.", "type": "string", "maxLength": 63},
        "targetNames": {"description": "Names of the targets, for a column.", "type": "string", "maxLength": 4096},
        "conditions": {
            "description": "Observations, one of each type.",
            "type": "array",
            "maxItems": 32,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": _CONDITION,
        },
    },
}

_READY: Final = '.status.conditions[?(@.type=="Ready")]'
_COLUMNS: Final = (
    {"name": "Ready", "type": "string", "jsonPath": f"{_READY}.status"},
    {"name": "Serving", "type": "string", "jsonPath": ".status.serving"},
    {"name": "Targets", "type": "string", "jsonPath": ".status.targetNames"},
    {"name": "Reason", "type": "string", "jsonPath": f"{_READY}.reason"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)


def crd() -> dict[str, Any]:
    """Return the definition as plain values, in the order in which it is written."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{_PLURAL}.{_GROUP}"},
        "spec": {
            "group": _GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": _PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["ie"],
                "categories": ["enginesmith"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1alpha1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": list(_COLUMNS),
                    "schema": {"openAPIV3Schema": _root()},
                }
            ],
        },
    }


def crd_yaml() -> str:
    """Return the definition as the text of its file."""
    return _HEADER + yaml.dump(crd(), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _root() -> Schema:
    return {
        "description": summary(InferenceEngine),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "maxLength": 63},
            "kind": {"type": "string", "maxLength": 63},
            "metadata": {"type": "object"},
            "spec": {"description": summary(InferenceEngineSpec)} | schema_of_model(InferenceEngineSpec),
            "status": _STATUS,
        },
        "x-kubernetes-validations": [rule._asdict() for rule in ROOT_RULES],
    }


class _Dumper(yaml.SafeDumper):
    """Writes every value out: an anchor would tie unrelated fields together for a reader."""

    @override
    def ignore_aliases(self, data: object) -> bool:
        """Never alias."""
        return True
