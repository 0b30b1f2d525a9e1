"""The table of kinds: a row that contradicts itself is refused, and all that is derived agrees with it."""

from dataclasses import replace

import pytest
from api_schema.kinds import DEFINITIONS

from enginesmith_operator.controller.watch.handlers import labels_of
from enginesmith_operator.kinds import (
    DEPLOYMENT,
    ENGINE_BUILD,
    INFERENCE_ENGINE,
    KINDS,
    NODE,
    POD,
    WATCHED,
    Resource,
    Wakes,
    Watch,
    Writes,
    index_kinds,
    resource_of,
)
from enginesmith_operator.objects.labels import MANAGED_BY, MANAGER


@pytest.mark.parametrize(
    ("row", "change", "want"),
    [
        (NODE, {"kind": "node"}, "does not match"),
        (NODE, {"plural": "Nodes"}, "does not match"),
        (NODE, {"version": "1"}, "does not match"),
        (NODE, {"watch": None}, "no event wakes anything"),
        (NODE, {"watch": None, "wakes": Wakes.OWNERS}, "no right on it"),
        (DEPLOYMENT, {"watch": None}, "are watched"),
        (DEPLOYMENT, {"watch": Watch.CATALOG}, "are watched"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(row: Resource, change: dict[str, object], want: str) -> None:
    with pytest.raises(ValueError, match=want):
        replace(row, **change)  # type: ignore[arg-type]  # one field of any type


def test_a_kind_has_one_row() -> None:
    with pytest.raises(ValueError, match="Node has two rows"):
        index_kinds([*KINDS, replace(NODE, version="v2")])
    assert [resource_of(row.kind) for row in KINDS] == list(KINDS)


def test_rights_follow_from_what_the_operator_does_with_a_kind() -> None:
    verbs = {
        row.kind: {verb for grant in row.rights() if not grant.subresource for verb in grant.verbs} for row in KINDS
    }
    reads = {"get", "list", "watch"}
    assert verbs["Pod"] == verbs["Node"] == verbs["InferenceEngine"] == reads
    assert verbs["Job"] == verbs["Deployment"] == verbs["EngineBuild"] == {*reads, "create", "patch", "delete"}
    assert verbs["ResourceSlice"] == {"list"}


def test_parents_are_watched_after_their_children() -> None:
    written = [WATCHED.index(row) for row in KINDS if row.writes is not None and row is not ENGINE_BUILD]
    assert max(*written, WATCHED.index(POD)) < WATCHED.index(ENGINE_BUILD) < WATCHED.index(INFERENCE_ENGINE)


def test_what_is_generated_is_watched_by_the_label_that_the_objects_have() -> None:
    labelled = {row.kind for row in WATCHED if labels_of(row) == f"{MANAGED_BY}={MANAGER}"}
    assert labelled == {"Pod", "Job", *(row.kind for row in KINDS if row.writes is Writes.APPLIED)}


def test_the_types_of_the_api_have_the_names_of_their_rows() -> None:
    for definition in DEFINITIONS:
        fields, row = definition.root.model_fields, definition.resource
        assert (fields["api_version"].default, fields["kind"].default) == (row.api_version, row.kind)
