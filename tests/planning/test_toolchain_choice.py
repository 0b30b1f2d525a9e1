"""Which toolchain a target gets: the newest that runs on most nodes, or the pinned one, or the reason why none."""

import pytest
from tests.planning.conftest import L4, NOW, MakeEngine, MakeNode, MakeObserved, refused_rules

from enginesmith_contract.backends import Backend, Toolchain
from enginesmith_contract.matrix.alternatives import BUILDER_MAJORS
from enginesmith_operator.api.toolchain import ToolchainSpec
from enginesmith_operator.planning.catalog import read_catalog
from enginesmith_operator.planning.plan import plan


def test_the_newest_toolchain_that_runs_on_most_nodes_wins(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    old = {"cuda_driver__version_full": "560.28.03"}
    observed = make_observed(make_node("new"), make_node("old-1", **old), make_node("old-2", **old))

    (engine,) = plan(make_engine(targets=[L4]), observed, NOW).targets[0].engines

    assert engine.toolchain.name == "trt-10.13-cu12"
    assert engine.why == "runs on 3 of 3 nodes, tensorrt 10.13.3.9 (CUDA 13.0) on 1"


_TENSORRT_10_6 = Toolchain(name="trt-10.6", backend=Backend.TENSORRT, version="10.6.0", cuda="12.6")
_TENSORRT_12 = Toolchain(name="trt-12", backend=Backend.TENSORRT, version="12.0.0.1", cuda="13.0")


def test_without_a_range_every_version_is_taken_that_the_builder_is_made_for() -> None:
    wanted = ToolchainSpec().tensorrt
    assert wanted == f">={BUILDER_MAJORS[0]},<{int(BUILDER_MAJORS[-1]) + 1}"


@pytest.mark.parametrize(
    ("wanted", "catalog", "want_said"),
    [
        ({}, (_TENSORRT_10_6,), ""),
        ({}, (_TENSORRT_10_6, _TENSORRT_12), ""),
        ({"tensorrt": ">=10.9,<12"}, (_TENSORRT_10_6,), "spec.toolchain asks for tensorrt >=10.9,<12"),
        ({}, (_TENSORRT_12,), "the builder supports tensorrt >=10,<12; spec.toolchain.tensorrt can ask for another"),
        ({"cuda": ">=13"}, (_TENSORRT_10_6,), "spec.toolchain asks for tensorrt >=10,<12 and CUDA >=13"),
    ],
)
def test_an_older_complete_toolchain_is_taken_unless_the_document_asks_for_another(
    make_engine: MakeEngine,
    make_observed: MakeObserved,
    make_node: MakeNode,
    wanted: dict[str, str],
    catalog: tuple[Toolchain, ...],
    want_said: str,
) -> None:
    node = make_node("gpu-1", "NVIDIA-H200", cuda_driver__version_full="580.159.04")
    observed = make_observed(node).model_copy(update={"toolchains": catalog})
    target = {"name": "h200", "gpu": {"product": "NVIDIA-H200"}}

    (found,) = plan(make_engine(targets=[target], toolchain=wanted), observed, NOW).targets

    assert [one.toolchain.name for one in found.engines] == ([] if want_said else ["trt-10.6"])
    assert want_said in "".join(one.sentence() for one in found.refusals)


def test_nodes_that_the_toolchain_leaves_out_are_named_with_the_rule(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    observed = make_observed(make_node("new"), make_node("old", cuda_driver__version_full="470.82.01"))

    (target,) = plan(make_engine(targets=[L4]), observed, NOW).targets

    assert target.engines[0].nodes == ("new",)
    assert refused_rules(plan(make_engine(targets=[L4]), observed, NOW)) == ["DriverFloor"]
    assert "470.82.01" in target.refusals[0].sentence()


@pytest.mark.parametrize(
    ("update", "want_name", "want_newer"),
    [("manual", "trt-10.9-cu12", "trt-10.13-cu13"), ("auto", "trt-10.13-cu13", None)],
)
def test_a_pinned_toolchain_stays_and_a_newer_one_shows(
    make_engine: MakeEngine,
    make_observed: MakeObserved,
    make_node: MakeNode,
    update: str,
    want_name: str,
    want_newer: str | None,
) -> None:
    observed = make_observed(make_node("gpu-1"))
    pinned = next(one for one in observed.toolchains if one.name == "trt-10.9-cu12")
    observed = observed.model_copy(update={"pinned": {"l4": pinned}})

    result = plan(make_engine(targets=[L4], toolchain={"update": update}), observed, NOW)

    (engine,) = result.targets[0].engines
    assert engine.toolchain.name == want_name
    assert (engine.newer.name if engine.newer else None) == want_newer
    assert ("UpdateAvailable" in {one.type for one in result.conditions}) == (want_newer is not None)


def test_a_pin_that_runs_nowhere_gives_way_and_says_so(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    observed = make_observed(make_node("gpu-1", cuda_driver__version_full="560.28.03"))
    pinned = next(one for one in observed.toolchains if one.name == "trt-10.13-cu13")
    observed = observed.model_copy(update={"pinned": {"l4": pinned}})

    (engine,) = plan(make_engine(targets=[L4]), observed, NOW).targets[0].engines

    assert engine.toolchain.name == "trt-10.13-cu12"
    assert engine.why.startswith("the pinned tensorrt 10.13.3.9 (CUDA 13.0) runs on none of these nodes")


@pytest.mark.parametrize(
    ("toolchain", "backend", "want_rule", "want_words"),
    [
        ({"tensorrt": ">=11"}, "tensorrt", "ToolchainOutOfRange", "spec.toolchain asks for tensorrt >=11"),
        ({}, "onnxruntime", "NoToolchain", "onnxruntime with provider openvino"),
    ],
)
def test_a_missing_toolchain_is_a_reason_of_its_own(
    make_engine: MakeEngine,
    make_observed: MakeObserved,
    make_node: MakeNode,
    toolchain: dict[str, str],
    backend: str,
    want_rule: str,
    want_words: str,
) -> None:
    provider = {"provider": "openvino"} if backend == "onnxruntime" else {}
    target = L4 | {"backend": backend} | provider

    result = plan(make_engine(targets=[target], toolchain=toolchain), make_observed(make_node("gpu-1")), NOW)

    assert refused_rules(result) == [want_rule]
    assert want_words in result.targets[0].refusals[0].sentence()


def test_a_toolchain_that_is_missing_may_be_an_entry_that_cannot_be_read(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    problem = read_catalog({"trt-12": "backend: tensorrt"}).problems[0]
    unread = {"toolchains": (), "unreadable_toolchains": (problem.found,)}
    observed = make_observed(make_node("gpu-1")).model_copy(update=unread)

    result = plan(make_engine(targets=[L4]), observed, NOW)

    said = result.targets[0].refusals[0].sentence()
    assert "no toolchain for tensorrt is in the toolchain catalog" in said
    assert "1 of its entries cannot be read: trt-12: version: field required" in said
