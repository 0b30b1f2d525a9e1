"""`enginesmith store`: what it takes from a cluster's objects, lists, and deletes."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import CommandLine

from enginesmith_cli.store_claims import claims_of, read_objects
from enginesmith_contract.errors import SpecError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.store_layout import engine_pointer
from enginesmith_runtime.store.open import open_store


def key(number: int) -> str:
    return f"{number:064x}"


def engine(name: str = "resnet", retention: Mapping[str, object] | None = None, **status: object) -> dict[str, Any]:
    return {
        "kind": "InferenceEngine",
        "metadata": {"name": name, "namespace": "vision"},
        "spec": {"retention": retention or {}},
        "status": status,
    }


def ended_build(number: int, target: str = "a100", owner: str = "resnet", phase: str = "Succeeded") -> dict[str, Any]:
    return {
        "kind": "EngineBuild",
        "metadata": {
            "name": f"{owner}-{target}-{number}",
            "namespace": "vision",
            "creationTimestamp": f"2026-01-{number:02}T00:00:00Z",
            "ownerReferences": [{"kind": "InferenceEngine", "name": owner}],
        },
        "spec": {"target": target, "request": {"engineKey": key(number)}},
        "status": {"phase": phase},
    }


def test_whatever_a_status_names_is_in_use() -> None:
    claims = claims_of(
        [engine(targets=[{"serving": [key(1)], "name": f"resnet-a100-{key(2)[:20]}"}], later={"field": key(3)})]
    )
    assert claims.names(key(1))
    assert claims.names(key(2))
    assert claims.names(key(3))
    assert not claims.names("f" * 64)


@pytest.mark.parametrize("status", [None, {}, {"phase": "Pending"}, {"phase": "Building"}])
def test_a_build_that_has_not_ended_needs_all_that_it_names(status: dict[str, str] | None) -> None:
    build = ended_build(1)
    build["status"] = status
    build["spec"]["request"]["keyInputs"] = {"preparationKey": key(9), "plugins": [key(8)]}
    claims = claims_of([build])
    assert all(claims.names(key(number)) for number in (1, 8, 9))


def test_of_each_target_the_newest_stay_beside_what_serves() -> None:
    builds = [ended_build(number) for number in (3, 1, 4, 2)] + [ended_build(7, target="l4")]
    claims = claims_of([engine(retention={"keepEngines": 1, "keepFor": "48h"}, serving=key(4)), *builds])
    assert claims.names(key(4))
    assert claims.keep_for_seconds == {
        key(3): math.inf,
        key(2): 48 * 3600.0,
        key(1): 48 * 3600.0,
        key(7): math.inf,
    }


def test_without_a_setting_two_earlier_engines_stay_and_no_third() -> None:
    claims = claims_of([engine(), *(ended_build(number) for number in (1, 2, 3))])
    assert claims.keep_for_seconds == {key(3): math.inf, key(2): math.inf, key(1): 0.0}


def test_an_engine_of_two_targets_stays_as_long_as_either_wants() -> None:
    builds = [ended_build(1), ended_build(2), ended_build(3), ended_build(1, target="l4")]
    assert claims_of([engine(), *builds]).keep_for_seconds[key(1)] == math.inf


def test_builds_without_their_engine_claim_nothing() -> None:
    claims = claims_of([ended_build(1, owner="gone")])
    assert claims.keep_for_seconds == {}
    assert not claims.names(key(1))


@pytest.mark.parametrize("text", ["", "[", '{"kind": "Pod"}', '{"kind": "List", "items": [{"kind": "Pod"}]}', "[1]"])
def test_what_is_no_list_of_our_objects_is_refused(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_objects(text, "objects.json")
    assert caught.value.reason == "ObjectsUnreadable"


def age_everything(folder: Path, days: float) -> None:
    moment = time.time() - days * 24 * 3600
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (moment, moment))


@pytest.mark.slow
def test_a_local_store_is_listed_and_swept_by_age(command_line: CommandLine) -> None:
    assert command_line.run("build", "engine.yaml").returncode == ExitCode.OK
    listed = command_line.run("store", "list")
    assert listed.returncode == ExitCode.OK
    assert "onnxruntime" in listed.stdout
    assert "1 keys, 1 preparations" in listed.stdout

    young = json.loads(command_line.run("store", "gc", "--delete", "--keep-for", "0s", "-o", "json").stdout)
    assert set(young["pointers"].values()) == {"young"}
    assert young["blobs"] == []
    age_everything(command_line.home / "store", 40)
    planned = command_line.run("store", "gc")
    assert "would delete 2 of 2 entries" in planned.stdout
    assert "Nothing was deleted" in planned.stdout
    assert "keys" in command_line.run("store", "list").stdout
    done = command_line.run("store", "gc", "--delete")
    assert done.returncode == ExitCode.OK
    assert "deleted 2 of 2 entries" in done.stdout
    assert "nothing" in command_line.run("store", "list").stdout
    assert not any((command_line.home / "store/blobs/sha256").iterdir())


@pytest.mark.slow
def test_what_a_cluster_serves_stays(command_line: CommandLine, tmp_path: Path) -> None:
    assert command_line.run("build", "engine.yaml", "--store", str(tmp_path / "shared")).returncode == ExitCode.OK
    age_everything(tmp_path / "shared", 99)
    (name,) = open_store(str(tmp_path / "shared")).list_pointers("keys/")
    served = name.removeprefix("keys/").removesuffix(".json")
    document = {"kind": "List", "items": [engine(targets=[{"serving": [served]}])]}
    (tmp_path / "objects.json").write_text(json.dumps(document), encoding="utf-8")
    words = ("store", "gc", "--store", str(tmp_path / "shared"), "--delete")

    refused = command_line.run(*words)
    assert refused.returncode == ExitCode.SPEC_INVALID
    assert "--no-objects" in refused.stderr
    kept = command_line.run(*words, "--objects", str(tmp_path / "objects.json"))
    assert kept.returncode == ExitCode.OK, kept.stderr
    assert open_store(str(tmp_path / "shared")).read_pointer(engine_pointer(served)) is not None
    (tmp_path / "objects.json").write_text('{"kind": "List", "items": []}', encoding="utf-8")
    assert command_line.run(*words, "--objects", str(tmp_path / "objects.json")).returncode == ExitCode.SPEC_INVALID
    assert command_line.run(*words, "--no-objects").returncode == ExitCode.OK
    assert open_store(str(tmp_path / "shared")).read_pointer(engine_pointer(served)) is None


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--grace", "1h"), ("--grace", "soon"), ("--keep-for", "30d")])
def test_a_time_that_cannot_be_is_refused(command_line: CommandLine, words: tuple[str, str]) -> None:
    run = command_line.run("store", "gc", *words)
    assert run.returncode == ExitCode.SPEC_INVALID
    assert words[0] in run.stderr
