"""The generated CRD is what the API server takes, says what the types say, and is committed as generated.

The structural rules are Kubernetes' own ("Custom resources: specifying a structural schema").
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_schema.crd import crd, crd_yaml
from api_schema.kinds import DEFINITIONS, Definition
from api_schema.reference import definition_page, engine_page, field_entries

from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.api.introspect import places_of
from enginesmith_operator.api.load import load_documents

ROOT = Path(__file__).resolve().parent.parent.parent
CRD_FOLDER = ROOT / "crds"
REFERENCE = ROOT / "docs" / "reference"
FORBIDDEN = {"$ref", "definitions", "anyOf", "oneOf", "allOf", "not", "deprecated", "patternProperties", "uniqueItems"}

Schema = dict[str, Any]


ENGINE, BUILD = DEFINITIONS[:2]


def _version(kind: Definition) -> Schema:
    (only,) = crd(kind)["spec"]["versions"]
    assert isinstance(only, dict)
    return only


def _schemas(kind: Definition) -> dict[str, Schema]:
    """Every schema of the definition by its path ("spec.targets[].name")."""
    return dict(_walk(_version(kind)["schema"]["openAPIV3Schema"], ""))


@pytest.fixture(scope="module")
def schemas() -> dict[str, Schema]:
    """Those of an InferenceEngine."""
    return _schemas(ENGINE)


each_kind = pytest.mark.parametrize("kind", DEFINITIONS, ids=lambda kind: kind.resource.kind)


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

    pages = {ENGINE: engine_page(documents)} | {kind: definition_page(kind) for kind in DEFINITIONS[1:]}
    for kind, page in pages.items():
        file = REFERENCE / f"{kind.resource.kind.lower()}.md"
        assert file.read_text(encoding="utf-8") == page, "run hack/generate-reference"
    assert {path.name for path in CRD_FOLDER.iterdir()} == {
        f"enginesmith.io_{kind.resource.plural}.yaml" for kind in DEFINITIONS
    }
    for kind in DEFINITIONS:
        file = CRD_FOLDER / f"enginesmith.io_{kind.resource.plural}.yaml"
        assert file.read_text(encoding="utf-8") == crd_yaml(kind), "run hack/generate-crds"
        assert yaml.safe_load(crd_yaml(kind)) == crd(kind)


@each_kind
def test_every_value_has_exactly_one_type(kind: Definition) -> None:
    for path, schema in _schemas(kind).items():
        ways = [schema.get("type"), schema.get("x-kubernetes-int-or-string"), schema.get("additionalProperties")]
        assert not FORBIDDEN & schema.keys(), path
        if schema.get("x-kubernetes-int-or-string") or (path == "spec.precision"):
            assert "type" not in schema, path
        else:
            assert ways[0] in {"object", "array", "string", "integer", "number", "boolean"}, path
        assert not ("properties" in schema and "additionalProperties" in schema), path


@each_kind
def test_everything_that_can_grow_has_a_bound(kind: Definition) -> None:
    for path, schema in _schemas(kind).items():
        if path in {"metadata", "", "spec", "status"}:
            continue
        match schema.get("type"):
            case "string":
                assert "enum" in schema or schema["maxLength"] <= 8192, path
            case "array":
                assert schema["maxItems"] <= 256, path
            case "object" if "additionalProperties" in schema:
                assert schema["maxProperties"] <= 256, path
            case _:
                pass


@each_kind
def test_every_field_of_the_types_is_described(kind: Definition) -> None:
    schemas = _schemas(kind)
    # The API server cannot look into a value that is a word or a mapping.
    wanted = {
        f"{part}.{path}"
        for part, model in (("spec", kind.spec), ("status", kind.status))
        if model is not None
        for paths in places_of(model).values()
        for path in paths
        if not path.startswith("precision.")
    }

    described = {
        path for path, schema in schemas.items() if path.startswith(("spec.", "status.")) and "description" in schema
    }

    assert described == wanted
    assert all(schemas[path]["description"][0].isupper() or schemas[path]["description"][0] in '`0"' for path in wanted)


@each_kind
def test_the_api_server_fills_in_nothing_in_a_status(kind: Definition) -> None:
    assert [path for path, schema in _schemas(kind).items() if path.startswith("status.") and "default" in schema] == []


def test_defaults_are_those_of_the_types(schemas: dict[str, Schema]) -> None:
    spec = InferenceEngineSpec.model_validate(
        {"model": {"uri": "a"}, "build": {}, "toolchain": {}, "serving": {}, "rollout": {}}
    )
    defaults = {path: schema["default"] for path, schema in schemas.items() if "default" in schema}

    # An EnginePolicy may have another one.
    assert "spec.build.timeout" not in defaults
    assert defaults["spec.build.optimizationLevel"] == spec.build.optimization_level
    assert defaults["spec.toolchain.tensorrt"] == spec.toolchain.tensorrt
    assert defaults["spec.serving.drainDelay"] == "5s"
    assert defaults["spec.serving.maxMessageBytes"] == "64Mi"
    assert "spec.targets[].replicas" not in defaults
    assert "spec.build.workspace" not in defaults


def test_lists_with_names_are_maps_to_the_api_server(schemas: dict[str, Schema]) -> None:
    for path in ("spec.targets", "status.conditions", "status.targets"):
        (key,) = schemas[path]["x-kubernetes-list-map-keys"]
        item = schemas[path]["items"]
        assert schemas[path]["x-kubernetes-list-type"] == "map"
        assert key in item.get("required", []), path


def test_rules_guard_shapes_names_and_choices(schemas: dict[str, Schema]) -> None:
    rules = {path: schema["x-kubernetes-validations"] for path, schema in schemas.items() if _has_rules(schema)}
    amounts = {path for path, schema in schemas.items() if _is_amount(schema)}

    assert set(rules) - amounts == {
        "",
        "spec",
        "spec.model",
        "spec.model.preprocess[]",
        "spec.profiles[].inputs.<name>",
        "spec.profiles[].inputs.<name>.values",
        "spec.serving.batching",
        "spec.serving.clientLimits",
        "spec.serving.queue",
        "spec.store",
        "spec.store.oci",
        "spec.store.pvc",
        "spec.store.s3",
        "spec.targets[]",
        "spec.targets[].autoscaling",
        "spec.verification.inputs.<name>",
        "spec.verification.metricContainer.resources",
        "spec.build",
        "spec.build.resources",
        "spec.podTemplate",
        "spec.podTemplate.resources",
        "spec.podTemplate.tolerations[]",
        "spec.podTemplate.env[]",
        "spec.podTemplate.env[].valueFrom",
    }
    for path, entries in rules.items():
        for entry in entries:
            assert entry.keys() == {"rule", "message"}, path
            assert entry["rule"].count("(") == entry["rule"].count(")"), path
            assert "\n" not in entry["message"], path


@each_kind
def test_the_api_server_fills_in_nothing_in_a_list(kind: Definition) -> None:
    """`kubectl apply` replaces a list as a whole: with a default in it, an unchanged file is sent again and again."""
    assert [path for path, schema in _schemas(kind).items() if "[]" in path and "default" in schema] == []


@each_kind
def test_every_amount_and_number_of_a_spec_has_a_least_and_a_largest_value(kind: Definition) -> None:
    for path, schema in _schemas(kind).items():
        if not path.startswith("spec.") or path.endswith(_VALUES_OF_TENSORS):
            continue
        if schema.get("type") in {"integer", "number"}:
            assert {"minimum", "maximum"} <= schema.keys(), path
        elif _is_amount(schema):
            (rule,) = schema["x-kubernetes-validations"]
            assert "expected a " in rule["message"], path
            assert " of at least " in rule["message"], path


_VALUES_OF_TENSORS = (".constant", ".range[]")


def _is_amount(schema: Schema) -> bool:
    """Whether the schema is of a duration, a number of bytes or a quantity."""
    return bool(schema.get("x-kubernetes-int-or-string")) or str(schema.get("pattern", "")).startswith("^(0|((")


def test_a_build_never_changes() -> None:
    rules = {path: schema["x-kubernetes-validations"] for path, schema in _schemas(BUILD).items() if _has_rules(schema)}

    assert [rule["rule"] for rule in rules["spec"]] == ["self == oldSelf"]


def _has_rules(schema: Schema) -> bool:
    return "x-kubernetes-validations" in schema


@pytest.mark.parametrize(
    ("kind", "want_short", "want_columns"),
    [
        (ENGINE, "ie", ["Ready", "Up-To-Date", "Serving", "On", "Since", "Reason", "Age"]),
        (BUILD, "eb", ["Phase", "Target", "GPU", "Node", "Progress", "Reason", "Seconds", "Age"]),
    ],
    ids=lambda value: value.resource.kind if isinstance(value, Definition) else "",
)
def test_the_definition_has_what_kubectl_shows(kind: Definition, want_short: str, want_columns: list[str]) -> None:
    names, version = crd(kind)["spec"]["names"], _version(kind)

    assert (names["shortNames"], names["categories"]) == ([want_short], ["enginesmith"])
    assert version["subresources"] == {"status": {}}
    columns = version["additionalPrinterColumns"]
    assert [column["name"] for column in columns if not column.get("priority")] == want_columns


@each_kind
def test_every_column_reads_a_field_that_there_is(kind: Definition) -> None:
    schemas = _schemas(kind)
    for column in kind.columns:
        path = re.sub(r'\[\?\(@\.type=="\w+"\)\]', "[]", column.path.removeprefix("."))
        assert path in schemas or path.startswith("metadata."), column.name


@each_kind
def test_the_reference_page_has_every_field_and_condition_once(kind: Definition) -> None:
    page = (REFERENCE / f"{kind.resource.kind.lower()}.md").read_text(encoding="utf-8")

    for part in ("spec", "status"):
        text = page.partition("\n## status\n")[2 if part == "status" else 0]
        for entry in field_entries(kind, part):
            name = entry.path.removeprefix(f"{part}.")
            assert text.count(f"| `{name}` |") + text.count(f"| **`{name}`** |") == 1, name
            assert entry.meaning, name
    assert page.count("\n| Ready |") == (1 if kind.status is not None else 0)


def test_a_field_without_an_example_is_found_out(every_field: str) -> None:
    with pytest.raises(LookupError, match=r"no example sets spec\.model\.sha256"):
        engine_page([load_documents(every_field, where="x")[-1].to_document()])
