"""What `kubectl enginesmith` makes of objects as a cluster had them (`recorded/engines.json`), without a cluster."""

import json
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from enginesmith_cli.main import kubectl_plugin
from enginesmith_cli.plugin.commands.inspect import inspected_lines
from enginesmith_cli.plugin.draw import draw_trees
from enginesmith_cli.plugin.explanation import explain_object
from enginesmith_cli.plugin.kubectl import call_error
from enginesmith_cli.plugin.objects import Objects, age
from enginesmith_cli.plugin.reading import engine_name, kind_and_name
from enginesmith_cli.plugin.tree import Branch, Health, grow_trees
from enginesmith_cli.plugin.unneeded import find_unneeded
from enginesmith_contract.errors import SpecError

ITEMS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("recorded").joinpath("engines.json").read_text())
NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def items() -> list[dict[str, Any]]:
    return deepcopy(ITEMS)


def one(found: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(each for each in found if each["kind"] == kind and each["metadata"]["name"].startswith(name))


def below(tree: Branch) -> Iterator[Branch]:
    yield tree
    for child in tree.children:
        yield from below(child)


def test_a_serving_engine_is_a_tree_from_the_engine_to_its_pods() -> None:
    (tree,) = grow_trees(Objects(items()), NOW, "served")
    assert {each.health for each in below(tree)} == {Health.GOOD}
    (target,) = (child for child in tree.children if child.kind == "Target")
    build, server = target.children
    assert (build.kind, build.children[0].kind, build.children[0].children[0].kind) == ("EngineBuild", "Job", "Pod")
    assert (server.kind, server.phase.split(" on ")[0]) == ("Pod", "Running 1/1")
    assert tree.phase == "Ready, 1/1 serving"


def test_every_failure_is_marked_where_it_is_with_its_reason() -> None:
    trees = {tree.name: list(below(tree)) for tree in grow_trees(Objects(items()), NOW)}
    assert trees["h100"][0].health is Health.BAD
    assert ("Target", "NoPlan") in {(each.kind, each.reason) for each in trees["h100"]}
    assert ("Pod", "Unschedulable") in {(each.kind, each.reason) for each in trees["big"]}
    missing = [each for each in trees["missing"] if each.health is Health.BAD]
    assert ("Pod", "NotFound") in {(each.kind, each.reason) for each in missing}
    assert all("absent.onnx: there is no such model" in each.message for each in missing if each.kind == "Pod")
    failing = [each for each in trees["failing"] if each.kind == "EngineBuild"]
    assert [each.health for each in failing] == [Health.BAD]


def test_lines_are_coloured_only_where_asked_to_and_cut_only_on_a_terminal() -> None:
    trees = grow_trees(Objects(items()), NOW)
    plain = list(draw_trees(trees, colour=False))
    assert not any("\x1b" in line for line in plain)
    assert any("its GPU is NVIDIA-A100-SXM4-80GB" in line for line in plain)
    assert any(line.startswith(("│  └─ ✓ Pod", "   │     └─ ✓ Pod")) for line in plain)
    coloured = list(draw_trees(trees, colour=True, columns=100))
    assert any("\x1b[31m✗\x1b[0m" in line for line in coloured)
    assert max(map(len, draw_trees(trees, colour=False, columns=100))) < max(map(len, plain))


def test_an_object_without_a_status_is_shown_and_explained() -> None:
    found = items()
    for each in found:
        each.pop("status", None)
    trees = grow_trees(Objects(found), NOW)
    assert all(tree.phase.startswith("no status") for tree in trees if tree.kind == "InferenceEngine")
    explained = explain_object(one(found, "InferenceEngine", "served"), Objects(found))
    assert not explained.is_ready
    assert "operator" in explained.summary
    assert "none is planned yet" in "\n".join(inspected_lines(one(found, "InferenceEngine", "served"), Objects(found)))


@pytest.mark.parametrize(
    ("name", "want_reason", "want_word"),
    [
        ("h100", "NoPlan", "NVIDIA-H100-80GB-HBM3"),
        ("missing", "NotFound", "absent.onnx"),
        ("big", "Unschedulable", "Insufficient cpu"),
        ("failing", "TimedOut", "stopped after 1 s"),
    ],
)
def test_what_is_not_ready_is_explained_with_its_cause_and_what_helps(
    name: str, want_reason: str, want_word: str
) -> None:
    found = items()
    explained = explain_object(one(found, "InferenceEngine", name), Objects(found))
    assert not explained.is_ready
    cause = next(each for each in explained.causes if each.reason == want_reason)
    assert want_word in " ".join(each.message for each in explained.causes)
    assert cause.means
    assert cause.do
    said = [(each.reason, each.message) for each in explained.causes]
    assert len(said) == len(set(said))


def test_a_ready_engine_needs_no_explanation() -> None:
    found = items()
    explained = explain_object(one(found, "InferenceEngine", "served"), Objects(found))
    assert (explained.is_ready, explained.causes, explained.events) == (True, (), ())


def test_a_reason_word_is_explained_without_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert kubectl_plugin(["explain", "NoFreeGPU"]) == 0
    assert "What to do:" in capsys.readouterr().out


def test_inspect_shows_model_engines_and_the_command_for_the_manifest() -> None:
    found = items()
    text = "\n".join(inspected_lines(one(found, "InferenceEngine", "served"), Objects(found)))
    assert "input          x FP32 [batch, 4]" in text
    assert "(serving, stored)" in text
    assert "verification   passed on generated inputs, difference 0" in text
    assert "--store s3://engines/vision" in text


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean served"):
        Objects(items()).named("InferenceEngine", "servd")
    with pytest.raises(SpecError, match="there is none"):
        Objects([]).named("InferenceEngine", "servd")


@pytest.mark.parametrize(
    ("word", "want"),
    [
        ("cls", ("InferenceEngine", "cls")),
        ("ie/cls", ("InferenceEngine", "cls")),
        ("inferenceengine.enginesmith.io/cls", ("InferenceEngine", "cls")),
        ("inferenceengines/cls", ("InferenceEngine", "cls")),
        ("build/cls-l4-1", ("EngineBuild", "cls-l4-1")),
        ("enginebuild.enginesmith.io/cls-l4-1", ("EngineBuild", "cls-l4-1")),
    ],
)
def test_an_object_is_named_as_kubectl_prints_it(word: str, want: tuple[str, str]) -> None:
    assert kind_and_name(word) == want


@pytest.mark.parametrize("word", ["pod/cls", "ie/", "vision/cls"])
def test_a_name_of_another_kind_is_refused(word: str) -> None:
    with pytest.raises(SpecError, match="ie/NAME"):
        kind_and_name(word)


def test_a_build_is_not_taken_for_an_engine() -> None:
    with pytest.raises(SpecError, match="kubectl enginesmith explain build/cls-1"):
        engine_name("build/cls-1")


@pytest.mark.parametrize("hours", ["nan", "-1", "inf", "1e30", "soon"])
def test_gc_takes_an_age_in_hours_only(hours: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        kubectl_plugin(["gc", f"--older-than={hours}"])
    assert "--older-than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stderr", "want_reason"),
    [
        ('error: the server doesn\'t have a resource type "inferenceengines"', "NotInstalled"),
        (
            "E1130 01:00:00.0 1 memcache.go:265] Unhandled\nThe connection to the server localhost:8080 was refused",
            "ClusterUnavailable",
        ),
        ("Unable to connect to the server: dial tcp 10.0.0.1:443: i/o timeout", "ClusterUnavailable"),
        (
            'Error from server (Forbidden): inferenceengines.enginesmith.io is forbidden: User "bob" cannot list',
            "Forbidden",
        ),
        ("error: You must be logged in to the server (Unauthorized)", "Unauthorized"),
        ('error: context "nope" does not exist', "NoConnection"),
        ('error: cluster "nope" does not exist', "NoConnection"),
        ('error: no server found for cluster "nope"', "NoConnection"),
        ('error: auth info "nope" does not exist', "NoConnection"),
        (
            "Error in configuration: context was not found for specified context: nope",
            "NoConnection",
        ),
        ("error: something else", "ClusterFailed"),
        ("", "ClusterFailed"),
    ],
)
def test_what_kubectl_says_becomes_an_error_with_a_remedy(stderr: str, want_reason: str) -> None:
    error = call_error(stderr)
    assert error.reason == want_reason
    assert error.exit_code == 33
    assert "memcache" not in error.sentence()


@pytest.mark.parametrize(
    ("stderr", "want"),
    [
        ('Error from server (Forbidden): nodes is forbidden: User "a" cannot list at the cluster scope', "--nodes"),
        ('Error from server (Forbidden): jobs.batch is forbidden: User "a" cannot list at the cluster scope', "-n"),
        ('Error from server (Forbidden): pods is forbidden: User "a" cannot list in the namespace "b"', "`view`"),
        ('error: error loading config file "k": yaml: line 1: did not find', "--kubeconfig"),
        ("error: stat k: no such file or directory", "--kubeconfig"),
    ],
)
def test_the_remedy_is_one_for_what_was_refused(stderr: str, want: str) -> None:
    assert want in call_error(stderr).remedy


def test_without_kubectl_the_plugin_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kubectl_plugin(["status"]) == 33
    assert "kubectl is not on PATH" in capsys.readouterr().err


def test_options_of_the_connection_may_precede_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kubectl_plugin(["-n", "vision", "--context=east", "status", "cls", "-o", "json"]) == 33
    assert kubectl_plugin(["--version"]) == 0
    assert "kubectl is not on PATH" in capsys.readouterr().err


def test_gc_keeps_a_failed_build_that_its_engine_names_and_lists_what_lost_its_owner() -> None:
    found = items()
    # In the recording the engine is prepared again, and may want the failed build after that.
    assert list(find_unneeded(Objects(found), NOW + timedelta(days=30), timedelta(hours=24))) == []

    engine = one(found, "InferenceEngine", "failing")
    (target,) = engine["status"]["targets"]
    target["engines"] = [{"key": "0" * 64, "build": one(found, "EngineBuild", "failing")["metadata"]["name"]}]
    assert list(find_unneeded(Objects(found), NOW + timedelta(days=30), timedelta(hours=24))) == []
    target["engines"] = [{"key": "0" * 64, "build": "another"}]
    later = NOW + timedelta(days=30)
    assert [each.kind for each in find_unneeded(Objects(found), later, timedelta(hours=24))] == ["EngineBuild"]
    assert list(find_unneeded(Objects(found), NOW, timedelta(days=365))) == []

    without = [each for each in items() if each["kind"] != "EngineBuild"]
    gone = list(find_unneeded(Objects(without), NOW, timedelta(hours=24)))
    assert {each.kind for each in gone} == {"Job"}
    assert all(each.path.startswith("/apis/batch/v1/namespaces/vision/jobs/") for each in gone)


def test_gc_keeps_everything_of_an_engine_without_a_status() -> None:
    found = items()
    del one(found, "InferenceEngine", "failing")["status"]
    assert list(find_unneeded(Objects(found), NOW + timedelta(days=30), timedelta(hours=24))) == []


@pytest.mark.parametrize(
    ("since", "want"),
    [
        ("2026-11-30T11:59:30Z", "30s"),
        ("2026-11-30T11:55:00Z", "5m"),
        ("2026-11-28T12:00:00Z", "2d"),
        ("2026-12-30T12:00:00Z", "0s"),
        (None, ""),
        ("yesterday", ""),
    ],
)
def test_an_age_is_written_as_kubectl_writes_it(since: str | None, want: str) -> None:
    assert age(since, NOW) == want
