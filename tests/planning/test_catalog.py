"""The toolchain catalog is read entry by entry, and pinned toolchains outlive it."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from enginesmith_contract.backends import Backend, Toolchain
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.planning.catalog import read_catalog
from enginesmith_operator.planning.hardware import NodeFacts
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import TargetState
from enginesmith_operator.planning.snapshot import Observed

MakeEngine = Callable[..., InferenceEngine]
MakeObserved = Callable[..., Observed]
MakeNode = Callable[..., NodeFacts]

NOW = datetime(2026, 11, 23, tzinfo=UTC)
IMAGE = f"registry.example/runtime@sha256:{'a1' * 32}"
PREPARE = f"registry.example/prepare@sha256:{'b2' * 32}"
TENSORRT = f'{{backend: tensorrt, version: 10.13.3.9, cuda: "12.9", image: "{IMAGE}"}}'
ONNXRUNTIME = f"""
backend: onnxruntime
version: 1.10
platforms: [linux/amd64, linux/arm64]
image: {IMAGE}
preparationImage: {PREPARE}
"""


def test_an_entry_is_a_toolchain_with_its_image() -> None:
    catalog = read_catalog({"trt": TENSORRT, "ort": ONNXRUNTIME})

    assert catalog.problems == ()
    assert catalog.toolchains == (
        Toolchain(name="ort", backend=Backend.ONNXRUNTIME, version="1.10", provider="cpu", image=IMAGE),
        Toolchain(name="trt", backend=Backend.TENSORRT, version="10.13.3.9", cuda="12.9", image=IMAGE),
    )
    assert catalog.platforms == {"ort": ("linux/amd64", "linux/arm64"), "trt": ("linux/amd64",)}


@pytest.mark.parametrize(
    ("text", "want_word"),
    [
        ("", "mapping"),
        ("[", "YAML"),
        ("- 1", "mapping"),
        (TENSORRT.replace("tensorrt", "tensorflow"), "backend"),
        (TENSORRT.replace(f"@sha256:{'a1' * 32}", ":latest"), "digest"),
        (TENSORRT.replace("10.13.3.9", "newest"), "version"),
        (TENSORRT.replace("}", ", gpu: none}"), "gpu"),
        ("a: &a [*a, *a]", "recursive"),
        ("x" * 100_000, "too long"),
    ],
)
def test_a_wrong_entry_is_named_and_takes_no_other_with_it(text: str, want_word: str) -> None:
    catalog = read_catalog({"bad": text, "trt": TENSORRT})

    assert [toolchain.name for toolchain in catalog.toolchains] == ["trt"]
    (problem,) = catalog.problems
    assert problem.rule == "CatalogEntryInvalid"
    assert problem.found.startswith("bad: ")
    assert want_word in problem.found


def test_the_preparation_has_the_image_of_a_chosen_toolchain_or_any_other() -> None:
    catalog = read_catalog({"trt": TENSORRT, "ort": ONNXRUNTIME})

    assert catalog.preparation_image(catalog.toolchains[1:]) == PREPARE
    assert read_catalog({"trt": TENSORRT}).preparation_image(()) == IMAGE
    assert read_catalog({}).preparation_image(catalog.toolchains) is None


def test_a_pinned_toolchain_stays_although_the_catalog_has_another_image_for_it_or_none(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    engine = make_engine(targets=[{"name": "l4", "gpu": {"product": "NVIDIA-L4"}}])
    catalog = read_catalog({"trt": TENSORRT})
    pinned = catalog.toolchains[0].model_copy(update={"image": PREPARE})

    for toolchains, want_newer in ((catalog.toolchains, catalog.toolchains[0]), ((), None)):
        observed = make_observed(make_node("gpu-1"), toolchains=toolchains, pinned={"l4": pinned})
        (planned,) = plan(engine, observed, NOW).targets[0].engines
        assert (planned.toolchain, planned.why, planned.newer) == (pinned, "pinned", want_newer)


@pytest.mark.parametrize(("image", "want_news"), [(IMAGE, False), (PREPARE, True)], ids=["the same", "another"])
def test_the_pinned_version_under_another_name_is_news_only_in_another_image(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode, image: str, *, want_news: bool
) -> None:
    engine = make_engine(targets=[{"name": "l4", "gpu": {"product": "NVIDIA-L4"}}])
    catalog = read_catalog({"trt": TENSORRT})
    pinned = catalog.toolchains[0].model_copy(update={"name": "trt-renamed", "image": image})
    observed = make_observed(make_node("gpu-1"), toolchains=catalog.toolchains, pinned={"l4": pinned})

    (planned,) = plan(engine, observed, NOW).targets[0].engines

    assert planned.toolchain == pinned
    assert planned.newer == (catalog.toolchains[0] if want_news else None)


def test_a_pinned_toolchain_goes_when_the_spec_asks_for_another(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    engine = make_engine(targets=[{"name": "l4"}], toolchain={"tensorrt": ">=10.13"})
    old = Toolchain(name="old", backend=Backend.TENSORRT, version="10.9.0.34", cuda="12.8", image=PREPARE)
    observed = make_observed(make_node("gpu-1"), pinned={"l4": old})

    (planned,) = plan(engine, observed, NOW).targets[0].engines

    assert planned.toolchain.version == "10.13.3.9"


def test_an_image_is_for_its_platforms_only(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    engine = make_engine(targets=[{"name": "cpu", "backend": "onnxruntime"}])
    arm = make_node("arm").model_copy(update={"arch": "arm64"})
    observed = make_observed(arm, platforms={"ort": ("linux/amd64",)})

    (target,) = plan(engine, observed, NOW).targets

    assert target.state is TargetState.REFUSED
    assert [count.rule for count in target.refusals] == ["Platform"]


def test_a_target_has_one_toolchain_and_the_one_that_most_of_its_nodes_bear(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    engine = make_engine(targets=[{"name": "ada", "gpu": {"computeCapability": "8.9"}}])
    old_driver = {"cuda_driver__version_full": "550.54.15"}
    nodes = (make_node("a", "NVIDIA-L4", **old_driver), make_node("b", "NVIDIA-L40S"), make_node("c", "NVIDIA-L40S"))

    (target,) = plan(engine, make_observed(*nodes), NOW).targets

    assert {one.toolchain.name for one in target.engines} == {"trt-10.13-cu12"}
    assert [one.hardware.product for one in target.engines] == ["NVIDIA-L4", "NVIDIA-L40S"]
