"""`precision.autoKeep` on a network of which one layer does not survive 8 bits."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.auto_keep import AutoKeepResult
from enginesmith_contract.backends import Backend, Precision, PrecisionPolicy
from enginesmith_contract.calibration import AutoKeep, Calibration
from enginesmith_contract.errors import VerificationError
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.profiles import Profile
from enginesmith_contract.verification import Verification, VerificationPolicy, VerificationStatus
from enginesmith_runtime.build.failed_gate import raise_if_failed
from enginesmith_runtime.build.kept_layers import with_shortfall
from enginesmith_runtime.prepare.jobs import Feed
from enginesmith_runtime.prepare.model_file.facts import facts_of
from enginesmith_runtime.prepare.quantize.auto_keep import find_nodes_to_keep
from enginesmith_runtime.prepare.quantize.calibrate import calibrate
from enginesmith_runtime.prepare.quantize.jobs import AutoKeepJob, CalibrateJob, Data
from enginesmith_runtime.store.interface import Store

F = TensorProto.FLOAT
node = helper.make_node
WIDTH, CLASSES = 32, 6


@pytest.fixture
def classifier(make_model: Callable[..., Path]) -> Path:
    """Return a classifier whose second layer reads one value that is 300 times as large as those that decide."""
    random = np.random.default_rng(3)
    first = random.normal(0, 0.2, (WIDTH, WIDTH)).astype(np.float32)
    first[:, 0] = 0
    first[0, 0] = 300
    second = random.normal(0, 0.3, (WIDTH, WIDTH)).astype(np.float32)
    second[0] = 0
    return make_model(
        [
            node("MatMul", ["x", "first_w"], ["a"], name="first"),
            node("Relu", ["a"], ["b"], name="relu"),
            node("MatMul", ["b", "second_w"], ["c"], name="second"),
            node("Tanh", ["c"], ["d"], name="tanh"),
            node("MatMul", ["d", "third_w"], ["e"], name="third"),
            node("Softmax", ["e"], ["y"], name="softmax"),
        ],
        inputs={"x": (F, ["n", WIDTH])},
        outputs={"y": (F, ["n", CLASSES])},
        weights={
            "first_w": first,
            "second_w": second,
            "third_w": random.normal(0, 1.0, (WIDTH, CLASSES)).astype(np.float32),
        },
    )


@pytest.fixture
def profile(make_profile: Callable[..., Profile]) -> Profile:
    return make_profile(x=((1, WIDTH), (2, WIDTH), (8, WIDTH)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.default_rng(4)
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(64):
        values = random.normal(0, 1, (1, WIDTH)).astype(np.float32)
        values[0, 0] = 1
        np.save(folder / f"{number:03}.npy", values)
    return folder


@pytest.fixture
def find(classifier: Path, profile: Profile, data: Path, tmp_path: Path) -> Callable[..., AutoKeepResult]:
    """Return a search for the classifier: `find(AutoKeep(...), kind=Precision.FP8, keep=("first",))`."""
    calibration = Calibration(source=str(data))
    feed = Feed(facts=facts_of(onnx.load(classifier), classifier).facts)
    described = Data(path=str(data), calibration=calibration, profiles=(profile,), batched=True)
    output = tmp_path / "calibrated"
    output.mkdir()
    job = CalibrateJob(model=str(classifier), output=str(output), feed=feed, data=described, memory_bytes=1 << 30)
    calibrated = calibrate(job, lambda _: None)

    def search(
        bounds: AutoKeep, kind: Precision = Precision.INT8, keep: tuple[str, ...] = (), **asked: object
    ) -> AutoKeepResult:
        folder = tmp_path / "search"
        folder.mkdir()
        told: list[float] = []
        found = find_nodes_to_keep(
            AutoKeepJob(
                source=str(classifier),
                model=str(output / calibrated.model),
                sources=calibrated.sources,
                histograms=calibrated.histograms,
                policy=PrecisionPolicy(default=kind, keep=keep, calibration=calibration),
                bounds=bounds,
                verification=VerificationPolicy.model_validate(asked),
                limit=0.1,
                feed=feed,
                data=described,
                folder=str(folder),
                memory_bytes=8 << 30,
            ),
            told.append,
        )
        assert told == sorted(told)
        assert all(0 <= share <= 1 for share in told)
        return found

    return search


def test_the_layer_that_needs_it_is_found_for_both_families_of_backends(find: Callable[..., AutoKeepResult]) -> None:
    found = find(AutoKeep(budget=1.0, agreement=0.8))
    assert found.ranking[0].node == "second"
    assert {one.node: one.size_bytes for one in found.ranking} == {
        "first": WIDTH * WIDTH,
        "second": WIDTH * WIDTH,
        "third": WIDTH * CLASSES,
    }
    assert found.weight_bytes == sum(one.size_bytes for one in found.ranking)
    for one in (found.tensorrt, found.onnxruntime):
        assert one is not None
        assert (one.reached, one.complete) == (True, True)
        assert "second" in one.kept
        assert one.curve[0].kept_nodes == 0
        assert one.curve[0].agreement < 0.9
    assert found.kept == ("second",)
    # ONNX Runtime's placement quantises what the first layer makes as well.
    assert found.onnxruntime is not None
    assert set(found.onnxruntime.kept) == {"first", "second"}


def test_a_budget_that_the_layer_does_not_fit_is_kept_and_said(find: Callable[..., AutoKeepResult]) -> None:
    found = find(AutoKeep(budget=0.1)).tensorrt
    assert not found.reached
    assert "second" not in found.kept


def test_a_node_that_the_spec_keeps_is_not_searched(find: Callable[..., AutoKeepResult]) -> None:
    found = find(AutoKeep(), keep=("second",))
    assert {one.node for one in found.ranking} == {"first", "third"}
    assert found.kept == ()
    assert found.tensorrt.reached


def test_fp8_has_one_model_for_all_backends(find: Callable[..., AutoKeepResult]) -> None:
    assert find(AutoKeep(), kind=Precision.FP8).onnxruntime is None


def test_a_search_without_time_says_that_it_is_not_complete(find: Callable[..., AutoKeepResult]) -> None:
    found = find(AutoKeep(timeout_seconds=1e-6))
    assert (found.kept, found.tensorrt.complete, found.tensorrt.reached) == ((), False, False)
    assert len(found.ranking) == 3


def test_the_agreement_that_is_asked_for_decides(find: Callable[..., AutoKeepResult]) -> None:
    assert find(AutoKeep(agreement=0.01)).kept == ()


@pytest.mark.slow
def test_the_result_is_part_of_the_preparation_and_not_searched_again(
    prepare_model: Callable[..., Preparation], classifier: Path, profile: Profile, data: Path, store: Store,
    tmp_path: Path,
) -> None:  # fmt: skip
    calibration = {"source": str(data)}
    precision = {"default": "int8", "calibration": calibration, "auto_keep": {"budget": 1.0, "agreement": 0.8}}
    done = prepare_model(classifier, profile, precision=precision)
    assert done.auto_keep is not None
    assert "second" in done.auto_keep.kept
    assert "precision.autoKeep" in done.kept["second"]
    assert done.auto_keep.onnxruntime is not None
    assert set(done.kept_for(Backend.ONNXRUNTIME)) == set(done.auto_keep.onnxruntime.kept)
    assert done.kept_for(Backend.TENSORRT) == done.kept
    model = onnx.load(store.get_files(done.model, tmp_path / "prepared"))
    quantised = {name for one in model.graph.node if one.op_type == "DequantizeLinear" for name in one.output}
    nodes = {one.name: one for one in model.graph.node}
    assert quantised.isdisjoint(nodes["second"].input)
    assert not quantised.isdisjoint(nodes["third"].input)
    # Without layers that FP16 pays for, the cast leaves the others in FP32; in 8 bits they are no such nodes.
    assert "third" not in done.kept
    assert not [line for line in done.warnings_for([Backend.TENSORRT]) if "third" in line]
    assert prepare_model(classifier, profile, precision=precision) == done


@pytest.mark.slow
def test_a_search_that_fails_says_which_bound_ended_it_for_the_backend_that_is_built(
    prepare_model: Callable[..., Preparation], classifier: Path, profile: Profile, data: Path
) -> None:
    bounds = {"budget": 1.0, "max_nodes": 1, "agreement": 0.99}
    precision = {"default": "int8", "calibration": {"source": str(data)}, "auto_keep": bounds}
    done = prepare_model(classifier, profile, precision=precision)
    shortfall = done.shortfall_for(Backend.ONNXRUNTIME) or ""
    assert re.match(
        r"precision\.autoKeep kept [01] of 3 nodes for ONNX Runtime and reached an agreement of 0\.\d+ on \d+ samples"
        r" of the calibration, which is less than it aims at; maxNodes ended the search: a larger maxNodes may help",
        shortfall,
    )
    said = done.warnings_for([Backend.ONNXRUNTIME])
    assert said[-1] == shortfall
    assert not [line for line in said if "TensorRT" in line or "FP16" in line]
    assert not [line for line in done.warnings_for([Backend.TENSORRT]) if "ONNX Runtime" in line]

    failed = Verification(status=VerificationStatus.FAILED, metric="maxRelative", reason="far off", agreements=())
    with pytest.raises(VerificationError) as caught:
        raise_if_failed(with_shortfall(failed, shortfall), done.arithmetic)
    assert f"far off; {shortfall}" in str(caught.value)
    assert "or precision.autoKeep" not in str(caught.value)
    # The two models lose in different places: each engine names the place in its own.
    fall = done.first_fall_for(Backend.ONNXRUNTIME)
    assert fall is not None
    assert fall != done.first_fall_for(Backend.TENSORRT)
