"""CustomResourceDefinitions of the kinds."""

from typing import Any, Final

import yaml
from typing_extensions import override

from enginesmith_operator.api.introspect import summary
from enginesmith_operator.api.schema.kinds import GROUP, VERSION, Column, Kind
from enginesmith_operator.api.schema.structural import Schema, schema_of_model

__all__ = ["crd", "crd_yaml"]

_HEADER: Final = "# Written by hack/generate-crds from operator/enginesmith_operator/api; do not edit.\n"


def crd(kind: Kind) -> dict[str, Any]:
    """Return the definition as plain values, in the order in which it is written."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.definition_name},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short_name],
                "categories": ["enginesmith"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": _root(kind)},
                }
            ],
        },
    }


def crd_yaml(kind: Kind) -> str:
    """Return the definition as the text of its file."""
    return _HEADER + yaml.dump(crd(kind), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _column(column: Column) -> dict[str, Any]:
    written: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return written | ({"priority": column.priority} if column.priority else {})


def _root(kind: Kind) -> Schema:
    root: Schema = {
        "description": summary(kind.root),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "maxLength": 63},
            "kind": {"type": "string", "maxLength": 63},
            "metadata": {"type": "object"},
            "spec": {"description": summary(kind.spec)} | schema_of_model(kind.spec),
            "status": {"description": summary(kind.status)} | schema_of_model(kind.status, defaults=False),
        },
    }
    if kind.rules:
        root["x-kubernetes-validations"] = [rule._asdict() for rule in kind.rules]
    return root


class _Dumper(yaml.SafeDumper):
    """Writes every value out, because an anchor would suggest that unrelated fields belong together."""

    @override
    def ignore_aliases(self, data: object) -> bool:
        """Return True: never write an alias."""
        return True
