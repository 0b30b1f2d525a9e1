"""The generated CRD is what the API server takes, says what the types say, and is committed as generated.

The structural rules are Kubernetes' own ("Custom resources: specifying a structural schema").
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from enginesmith_operator.api.inference_engine import InferenceEngine, InferenceEngineSpec
from enginesmith_operator.api.introspect import places_of
from enginesmith_operator.api.load import load_documents
from enginesmith_operator.api.schema.crd import crd, crd_yaml
from enginesmith_operator.api.schema.reference import field_entries, reference_page

ROOT = Path(__file__).resolve().parent.parent.parent
CRD_FILE = ROOT / "crds" / "enginesmith.io_inferenceengines.yaml"
REFERENCE_FILE = ROOT / "docs" / "reference" / "inferenceengine.md"
FORBIDDEN = {"$ref", "definitions", "anyOf", "oneOf", "allOf", "not", "deprecated", "patternProperties", "uniqueItems"}

Schema = dict[str, Any]


@pytest.fixture(scope="module")
def version() -> Schema:
    """The one version of the definition."""
    (only,) = crd()["spec"]["versions"]
    assert isinstance(only, dict)
    return only


@pytest.fixture(scope="module")
def schemas(version: Schema) -> dict[str, Schema]:
    """Every schema of the definition by its path ("spec.targets[].name")."""
    return dict(_walk(version["schema"]["openAPIV3Schema"], ""))


def _walk(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from _walk(inner, f"{path}.{name}".removeprefix("."))
    if "items" in schema:
        yield from _walk(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from _walk(schema["additionalProperties"], f"{path}.<name>")


def test_the_committed_files_are_what_the_types_say(every_field: str) -> None:
    documents = [engine.to_document() for engine in load_documents(every_field, where="every-field.yaml")]

    assert CRD_FILE.read_text(encoding="utf-8") == crd_yaml(), "run hack/generate-crds"
    assert REFERENCE_FILE.read_text(encoding="utf-8") == reference_page(documents), "run hack/generate-reference"
    assert yaml.safe_load(crd_yaml()) == crd()


def test_every_value_has_exactly_one_type(schemas: dict[str, Schema]) -> None:
    for path, schema in schemas.items():
        ways = [schema.get("type"), schema.get("x-kubernetes-int-or-string"), schema.get("additionalProperties")]
        assert not FORBIDDEN & schema.keys(), path
        if schema.get("x-kubernetes-int-or-string") or (path == "spec.precision"):
            assert "type" not in schema, path
        else:
            assert ways[0] in {"object", "array", "string", "integer", "number", "boolean"}, path
        assert not ("properties" in schema and "additionalProperties" in schema), path


def test_everything_that_can_grow_has_a_bound(schemas: dict[str, Schema]) -> None:
    for path, schema in schemas.items():
        if not path.startswith("spec."):
            continue
        match schema.get("type"):
            case "string":
                assert "enum" in schema or "maxLength" in schema, path
            case "array":
                assert schema["maxItems"] <= 256, path
            case "object" if "additionalProperties" in schema:
                assert schema["maxProperties"] <= 256, path
            case _:
                pass


def test_every_field_of_the_types_is_described(schemas: dict[str, Schema]) -> None:
    wanted = {path for paths in places_of(InferenceEngine).values() for path in paths if path.startswith("spec.")}
    # The API server cannot look into a value that is a word or a mapping.
    wanted = {path for path in wanted if not path.startswith("spec.precision.")}

    described = {path for path, schema in schemas.items() if path.startswith("spec.") and "description" in schema}

    assert described == wanted
    assert all(schemas[path]["description"][0].isupper() or schemas[path]["description"][0] in '`0"' for path in wanted)


def test_defaults_are_those_of_the_types(schemas: dict[str, Schema]) -> None:
    spec = InferenceEngineSpec.model_validate(
        {"model": {"uri": "a"}, "build": {}, "toolchain": {}, "serving": {"batching": {}}, "rollout": {}}
    )
    defaults = {path: schema["default"] for path, schema in schemas.items() if "default" in schema}

    assert defaults["spec.build.timeout"] == "30m"
    assert defaults["spec.build.optimizationLevel"] == spec.build.optimization_level
    assert defaults["spec.toolchain.tensorrt"] == spec.toolchain.tensorrt
    assert defaults["spec.serving.batching.maxQueueDelay"] == "500us"
    assert defaults["spec.serving.maxMessageBytes"] == "64Mi"
    assert defaults["spec.targets[].backend"] == "tensorrt"
    assert "spec.targets[].replicas" not in defaults
    assert "spec.build.workspace" not in defaults


def test_lists_with_names_are_maps_to_the_api_server(schemas: dict[str, Schema]) -> None:
    for path in ("spec.targets", "spec.profiles", "status.conditions"):
        (key,) = schemas[path]["x-kubernetes-list-map-keys"]
        item = schemas[path]["items"]
        assert schemas[path]["x-kubernetes-list-type"] == "map"
        assert key in item.get("required", []) or "default" in item["properties"][key], path


def test_rules_guard_shapes_names_and_choices(schemas: dict[str, Schema]) -> None:
    rules = {path: schema["x-kubernetes-validations"] for path, schema in schemas.items() if _has_rules(schema)}

    assert set(rules) == {
        "",
        "spec",
        "spec.model",
        "spec.profiles[].inputs.<name>",
        "spec.store",
        "spec.targets[]",
        "spec.targets[].autoscaling",
        "spec.verification.inputs.<name>",
        "spec.podTemplate.env[]",
        "spec.podTemplate.env[].valueFrom",
    }
    for path, entries in rules.items():
        for entry in entries:
            assert entry.keys() == {"rule", "message"}, path
            assert entry["rule"].count("(") == entry["rule"].count(")"), path
            assert "\n" not in entry["message"], path


def _has_rules(schema: Schema) -> bool:
    return "x-kubernetes-validations" in schema


def test_the_definition_has_what_kubectl_shows(version: Schema) -> None:
    names = crd()["spec"]["names"]

    assert (names["shortNames"], names["categories"]) == (["ie"], ["enginesmith"])
    assert version["subresources"] == {"status": {}}
    columns = [column["name"] for column in version["additionalPrinterColumns"]]
    assert columns == ["Ready", "Serving", "Targets", "Reason", "Age"]


def test_the_reference_page_has_every_field_once(every_field: str) -> None:
    page = REFERENCE_FILE.read_text(encoding="utf-8")

    for entry in field_entries():
        name = entry.path.removeprefix("spec.")
        assert page.count(f"| `{name}` |") + page.count(f"| **`{name}`** |") == 1, name
        assert entry.meaning, name
    with pytest.raises(LookupError, match=r"no example sets spec\.model\.sha256"):
        reference_page([load_documents(every_field, where="x")[-1].to_document()])
