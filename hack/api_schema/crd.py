"""CustomResourceDefinitions of the kinds."""

from typing import Any, Final

import yaml
from typing_extensions import override

from api_schema.descriptions import summary
from api_schema.kinds import Column, Definition
from api_schema.structural import Schema, schema_of_model

__all__ = ["crd", "crd_yaml"]

_HEADER: Final = "# Written by hack/generate-crds from operator/enginesmith_operator/api; do not edit.\n"


def crd(definition: Definition) -> dict[str, Any]:
    """Return the definition as plain values, in the order in which it is written."""
    resource = definition.resource
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": definition.name},
        "spec": {
            "group": resource.group,
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [definition.short_name],
                "categories": ["enginesmith"],
            },
            "scope": "Namespaced" if resource.is_namespaced else "Cluster",
            "versions": [
                {
                    "name": resource.version,
                    "served": True,
                    "storage": True,
                    **({"subresources": {"status": {}}} if definition.status is not None else {}),
                    "additionalPrinterColumns": [_column(column) for column in definition.columns],
                    "schema": {"openAPIV3Schema": _root(definition)},
                }
            ],
        },
    }


def crd_yaml(definition: Definition) -> str:
    """Return the definition as the text of its file."""
    return _HEADER + yaml.dump(crd(definition), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _column(column: Column) -> dict[str, Any]:
    written: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return written | ({"priority": column.priority} if column.priority else {})


def _root(definition: Definition) -> Schema:
    root: Schema = {
        "description": summary(definition.root),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "maxLength": 63},
            "kind": {"type": "string", "maxLength": 63},
            "metadata": {"type": "object"},
            "spec": {"description": summary(definition.spec)} | schema_of_model(definition.spec),
        },
    }
    if definition.status is not None:
        status = {"description": summary(definition.status)}
        root["properties"]["status"] = status | schema_of_model(definition.status, defaults=False)
    if definition.rules:
        root["x-kubernetes-validations"] = [rule._asdict() for rule in definition.rules]
    return root


class _Dumper(yaml.SafeDumper):
    """Writes every value out, because an anchor would suggest that unrelated fields belong together."""

    @override
    def ignore_aliases(self, data: object) -> bool:
        """Return True: never write an alias."""
        return True
