"""The store of seen objects: what is newer wins, what is gone goes, and everything is found by label."""

from typing import Any

from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.shared.cache import Address, ObjectCache

_LABEL = "enginesmith.io/engine"


def _object(name: str, version: int, *, uid: str = "", label: str = "", kind: str = "Job") -> Json:
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "default",
        "uid": uid or f"uid-{name}",
        "resourceVersion": str(version),
        "managedFields": [{"manager": "enginesmith"}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "kept": "yes"},
    }
    if label:
        metadata["labels"] = {_LABEL: label}
    return {"kind": kind, "apiVersion": "batch/v1", "metadata": metadata, "status": {"active": version}}


def _cache() -> ObjectCache:
    return ObjectCache(indexed_labels=(_LABEL,))


def test_an_older_version_does_not_replace_what_a_write_of_ours_brought() -> None:
    cache = _cache()
    assert cache.put(_object("a", 10)) is not None
    assert cache.put(_object("a", 9)) is None
    assert cache.put(_object("a", 10)) is None
    found = cache.find(Address("Job", "default", "a"))
    assert found is not None
    assert found.document()["status"] == {"active": 10}


def test_versions_are_compared_as_numbers() -> None:
    cache = _cache()
    cache.put(_object("a", 9))
    assert cache.put(_object("a", 10)) is not None


def test_another_object_of_the_same_name_replaces_the_first_whatever_its_version() -> None:
    cache = _cache()
    cache.put(_object("a", 10, label="one"))
    assert cache.put(_object("a", 3, uid="second", label="two")) is not None
    assert cache.labelled("default", _LABEL, "one") == ()
    assert [found.uid for found in cache.labelled("default", _LABEL, "two")] == ["second"]


def test_the_deletion_of_an_object_that_was_replaced_since_removes_nothing() -> None:
    cache = _cache()
    cache.put(_object("a", 10, uid="second"))
    assert cache.remove(Address("Job", "default", "a"), "first") is None
    assert cache.count("Job") == 1


def test_objects_are_found_by_label_until_they_lose_it_or_go() -> None:
    cache = _cache()
    cache.put(_object("b", 1, label="ocr"))
    cache.put(_object("a", 1, label="ocr"))
    assert [one.address.name for one in cache.labelled("default", _LABEL, "ocr")] == ["a", "b"]
    cache.put(_object("a", 2))
    assert [one.address.name for one in cache.labelled("default", _LABEL, "ocr")] == ["b"]
    assert cache.labelled("elsewhere", _LABEL, "ocr") == ()
    assert cache.remove(Address("Job", "default", "b"), "uid-b") is not None
    assert cache.labelled("default", _LABEL, "ocr") == ()


def test_what_no_reconcile_reads_is_not_kept() -> None:
    cache = _cache()
    stored = cache.put(_object("a", 1))
    assert stored is not None
    metadata = stored.document()["metadata"]
    assert "managedFields" not in metadata
    assert metadata["annotations"] == {"kept": "yes"}


def test_the_template_of_a_job_is_not_kept_and_that_of_a_deployment_is() -> None:
    cache = _cache()
    spec = {"suspend": True, "template": {"spec": {}}}
    job, deployment = (cache.put(_object("a", 1, kind=kind) | {"spec": spec}) for kind in ("Job", "Deployment"))
    assert job is not None
    assert deployment is not None
    assert job.document()["spec"] == {"suspend": True}
    assert deployment.document()["spec"] == spec


def test_labels_stay_beside_an_object_where_somebody_looks_for_them_and_all_stay_in_it() -> None:
    cache = _cache()
    document = _object("a", 1, label="ocr")
    document["metadata"]["labels"] |= {"enginesmith.io/target": "gpu", "team": "vision"}
    stored = cache.put(document)
    assert stored is not None
    assert stored.labels == {_LABEL: "ocr", "enginesmith.io/target": "gpu"}
    assert stored.document()["metadata"]["labels"] == document["metadata"]["labels"]


def test_a_listing_finds_ghosts_and_judges_nothing_that_came_after_it_began() -> None:
    cache = _cache()
    cache.put(_object("gone", 1))
    cache.put(_object("replaced", 1, uid="old"))
    cache.put(_object("there", 1))
    since = cache.mark
    cache.put(_object("new", 5))
    seen = {("default", "there"): "uid-there", ("default", "replaced"): "another"}
    ghosts = cache.drop_ghosts("Job", seen, since=since)
    assert sorted(one.address.name for one in ghosts) == ["gone", "replaced"]
    assert {one.address.name for one in cache.of_kind("Job")} == {"there", "new"}
