"""One engine from a stored preparation: built, verified, stored; found the second time; refused when it is wrong."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.backends import Backend, Precision
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import (
    BuildError,
    BuildOutOfMemoryError,
    CancelledBuildError,
    EngineRefusedError,
    StoreError,
    VerificationError,
)
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.profiles import Profile
from enginesmith_contract.store_layout import blob_name, engine_pointer, preparation_pointer
from enginesmith_contract.verification import VerificationPolicy, VerificationStatus
from enginesmith_runtime.build.pipeline import build, measure_timings
from enginesmith_runtime.engines.registry import loader
from enginesmith_runtime.progress import Fact, SilentReporter
from enginesmith_runtime.store.interface import Store

PrepareModel = Callable[..., Preparation]
MakeRequest = Callable[..., BuildRequest]
SmallModel = Callable[..., Path]


class _Stages:
    """A Reporter that remembers the stages, and cancels in the one named."""

    def __init__(self, cancel_in: str = "") -> None:
        self.seen: list[str] = []
        self._cancel_in = cancel_in

    def begin(self, stage: str, detail: str = "") -> None:  # noqa: ARG002 - the Reporter's signature
        self.seen.append(stage)

    def advance(self, fraction: float, detail: str = "") -> None:  # noqa: ARG002 - the Reporter's signature
        if self.seen[-1:] == [self._cancel_in]:
            raise CancelledBuildError("the user stopped it")

    def end(self, **facts: Fact) -> None:
        """Nothing is remembered of it."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["det", "rec", "cls"])
def test_a_real_model_builds_for_the_cpu_and_answers_like_its_reference(
    name: str, prepare_ocr: PrepareModel, make_request: MakeRequest, store: Store, work: Path
) -> None:
    stages = _Stages()
    request = make_request(prepare_ocr(name))
    manifest = build(request, work, stages)
    assert stages.seen == ["build", "verify", "store"]
    assert manifest.verification.status is VerificationStatus.PASSED
    assert max(one.difference for one in manifest.verification.differences) <= 1e-3
    assert manifest.timings.latency_seconds.keys() == {"default"}
    assert manifest.inspector["weights"]
    assert list(store.list_pointers("keys")) == [engine_pointer(request.engine_key)]
    assert store.get_files(manifest.files, work / "copy").read_bytes()
    assert sorted(path.name for path in work.iterdir()) == ["copy"]


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "want_runs_on"), [(None, ()), ("8.9", ("8.9",)), ("12.0", ("12.0",))])
@pytest.mark.parametrize("name", ["det", "rec", "cls"])
def test_a_real_model_builds_with_tensorrt_for_rtx_on_a_cpu_and_is_not_called_verified(
    name: str,
    capability: str | None,
    want_runs_on: tuple[str, ...],
    prepare_ocr: PrepareModel,
    make_request: MakeRequest,
    store: Store,
    work: Path,
) -> None:
    request = make_request(prepare_ocr(name), Backend.TENSORRT_RTX, hardware={"compute_capability": capability})
    manifest = build(request, work, SilentReporter())
    assert manifest.verification.status is VerificationStatus.NOT_RUN
    assert "no GPU is visible here" in manifest.verification.reason
    assert manifest.verification.differences == ()
    assert manifest.runs_on == want_runs_on
    assert manifest.hardware.product is None
    assert manifest.inspector["networkLayers"]
    assert store.get_files(manifest.files, work / "copy").read_bytes()[:4] == b"vtrt"


@pytest.mark.slow
def test_an_engine_for_a_gpu_is_refused_before_the_library_is_asked_where_there_is_none(
    small_model: SmallModel, prepare_model: PrepareModel, make_request: MakeRequest, store: Store, work: Path
) -> None:
    request = make_request(prepare_model(small_model()), Backend.TENSORRT_RTX)
    manifest = build(request, work, SilentReporter())
    store.get_files(manifest.files, work / "engine")
    with pytest.raises(EngineRefusedError) as refusal:
        loader(Backend.TENSORRT_RTX).load(manifest, work / "engine", {})
    assert refusal.value.reason == "RtxTarget"
    assert "no GPU is visible here" in str(refusal.value)


@pytest.mark.slow
def test_a_second_build_of_one_key_returns_the_first_and_imports_no_library(
    small_request: BuildRequest, work: Path, tmp_path: Path
) -> None:
    first = build(small_request, work, SilentReporter())
    stages = _Stages()
    assert build(small_request, work, stages) == first
    assert stages.seen == []
    request = tmp_path / "again.json"
    request.write_bytes(small_request.to_json())
    program = (
        "import sys; from enginesmith_runtime.build.__main__ import main; main([sys.argv[1]], {});"
        "print([name for name in ('onnxruntime', 'onnx', 'tensorrt_rtx', 'numpy.random') if name in sys.modules],"
        " file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(request)], check=True, capture_output=True, text=True, timeout=600
    )
    assert run.stderr.strip() == "[]"


def test_a_build_for_its_measurements_alone_stores_no_engine(
    small_model: SmallModel, prepare_model: PrepareModel, make_request: MakeRequest, store: Store, work: Path
) -> None:
    request = make_request(prepare_model(small_model()), Backend.TENSORRT_RTX)
    timings = measure_timings(request, work, SilentReporter())
    assert timings.build_seconds > 0
    assert timings.latency_seconds == {}
    assert list(store.list_pointers("keys/")) == []
    assert list(work.iterdir()) == []


def test_a_request_whose_key_is_not_that_of_its_inputs_is_refused(small_request: BuildRequest, work: Path) -> None:
    wrong = small_request.model_copy(update={"engine_key": "0" * 64})
    with pytest.raises(BuildError) as refusal:
        build(wrong, work, SilentReporter())
    assert refusal.value.reason == "KeyDiffers"


def test_a_build_without_a_preparation_says_so(small_request: BuildRequest, tmp_path: Path, work: Path) -> None:
    elsewhere = small_request.model_copy(update={"store": str(tmp_path / "other")})
    with pytest.raises(StoreError) as refusal:
        build(elsewhere, work, SilentReporter())
    assert refusal.value.reason == "PreparationMissing"


@pytest.mark.slow
def test_a_toolchain_that_is_not_installed_is_refused_with_both_versions(
    small_request: BuildRequest, work: Path, store: Store
) -> None:
    toolchain = small_request.toolchain.model_copy(update={"version": "1.2.3"})
    with pytest.raises(BuildError) as refusal:
        build(small_request.model_copy(update={"toolchain": toolchain}), work, SilentReporter())
    assert refusal.value.reason == "ToolchainDiffers"
    assert "1.2.3 was asked for" in str(refusal.value)
    assert list(store.list_pointers("keys")) == []


@pytest.mark.slow
def test_a_narrower_precision_passes_its_limit_and_a_limit_set_later_judges_it_without_a_build(
    prepare_ocr: PrepareModel, make_request: MakeRequest, work: Path
) -> None:
    request = make_request(prepare_ocr("cls", precision=Precision.FP16))
    manifest = build(request, work, SilentReporter())
    assert manifest.verification.limit == 1e-2
    assert manifest.verification.differences[0].difference > 0
    stages = _Stages()
    with pytest.raises(VerificationError) as failure:
        build(request.model_copy(update={"verification": VerificationPolicy(limit=0.0)}), work, stages)
    assert stages.seen == []
    assert failure.value.reason == "VerificationFailed"
    assert "limit 0" in str(failure.value)
    assert "precision.keep" in str(failure.value)
    loose = build(request.model_copy(update={"verification": VerificationPolicy(limit=0.5)}), work, stages)
    assert (loose.verification.status, loose.verification.limit) == (VerificationStatus.PASSED, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "want"),
    [
        (1.01, "output 'y', profile 'default', max: max|a-b|/max|b| is"),
        (float("nan"), "output 'y', profile 'default', min: element [0, 0] is nan where the reference is"),
    ],
)
def test_an_engine_that_answers_otherwise_than_its_reference_is_not_stored(
    scale: float,
    want: str,
    small_model: SmallModel,
    prepare_model: PrepareModel,
    make_request: MakeRequest,
    store: Store,
    work: Path,
) -> None:
    preparation = prepare_model(small_model())
    _swap_model(store, preparation, small_model("wrong.onnx", scale=scale))
    with pytest.raises(VerificationError) as failure:
        build(make_request(preparation), work, SilentReporter())
    assert want in str(failure.value)
    assert "'y'" in str(failure.value)
    assert list(store.list_pointers("keys")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operator", "dtype", "shape"),
    [("Det", TensorProto.FLOAT, []), ("NonZero", TensorProto.INT64, [2, None])],
    ids=["no import function", "no plugin"],
)
def test_every_node_that_the_parser_refuses_is_named(
    operator: str,
    dtype: int,
    shape: list[int | None],
    prepare_model: PrepareModel,
    make_request: MakeRequest,
    work: Path,
    tmp_path: Path,
) -> None:
    nodes = [
        helper.make_node(operator, ["x"], ["first"], name="one"),
        helper.make_node("Relu", ["x"], ["positive"], name="fine"),
        helper.make_node(operator, ["positive"], ["second"], name="other"),
    ]
    graph = helper.make_graph(
        nodes,
        "refused",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 3])],
        [
            helper.make_tensor_value_info("first", dtype, shape),
            helper.make_tensor_value_info("second", dtype, shape),
        ],
    )
    path = tmp_path / "refused.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    preparation = prepare_model(path, Profile())
    with pytest.raises(BuildError) as refusal:
        build(make_request(preparation, Backend.TENSORRT_RTX), work, SilentReporter())
    assert refusal.value.reason == "UnsupportedOperators"
    assert f"node 0 'one' ({operator})" in refusal.value.why
    assert f"node 2 'other' ({operator})" in refusal.value.why
    assert "fine" not in refusal.value.why


@pytest.mark.slow
def test_a_gpu_that_the_library_does_not_know_is_refused_with_those_it_knows(
    small_model: SmallModel, prepare_model: PrepareModel, make_request: MakeRequest, work: Path
) -> None:
    preparation = prepare_model(small_model())
    request = make_request(preparation, Backend.TENSORRT_RTX, hardware={"compute_capability": "9.0"})
    with pytest.raises(BuildError) as refusal:
        build(request, work, SilentReporter())
    assert refusal.value.reason == "ComputeCapabilityUnsupported"
    assert "8.6, 8.9, 12.0" in str(refusal.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "want_where"),
    [
        ({"hardware_compatibility": "ampere-plus"}, "build.hardwareCompatibility"),
        ({"version_compatible": True}, "build.versionCompatible"),
        ({"plugins": ({"uri": "libnone.so", "sha256": "0" * 64},)}, "build.plugins"),
    ],
)
def test_an_option_that_the_library_would_ignore_is_refused(
    options: dict[str, object],
    want_where: str,
    small_model: SmallModel,
    prepare_model: PrepareModel,
    make_request: MakeRequest,
    work: Path,
) -> None:
    request = make_request(prepare_model(small_model()), Backend.TENSORRT_RTX, options=options)
    with pytest.raises(BuildError) as refusal:
        build(request, work, SilentReporter())
    assert (refusal.value.reason, refusal.value.where) == ("OptionUnsupported", want_where)


@pytest.mark.slow
def test_an_allocation_that_fails_is_told_from_other_failures(
    small_model: SmallModel, prepare_model: PrepareModel, make_request: MakeRequest, store: Store, work: Path
) -> None:
    preparation = prepare_model(small_model())
    model = onnx.load(small_model("huge.onnx"))
    # Folded while the graph is optimised: 2^47 floats, which no machine has.
    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 47], np.int64), "size"))
    model.graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["size"], ["huge"]),
            helper.make_node("ReduceMax", ["huge"], ["scalar"], keepdims=0),
            helper.make_node("Add", ["b", "scalar"], ["c"]),
        ]
    )
    model.graph.node[1].input[0] = "c"
    relu = model.graph.node[1]
    del model.graph.node[1]
    model.graph.node.append(relu)
    path = work.parent / "huge.onnx"
    onnx.save(model, path)
    _swap_model(store, preparation, path)
    with pytest.raises(BuildOutOfMemoryError) as failure:
        build(make_request(preparation), work, SilentReporter())
    assert failure.value.reason == "OutOfMemory"


@pytest.mark.slow
def test_a_reporter_that_cancels_leaves_nothing_behind(
    prepare_ocr: PrepareModel, make_request: MakeRequest, store: Store, work: Path
) -> None:
    request = make_request(prepare_ocr("rec"), Backend.TENSORRT_RTX)
    with pytest.raises(CancelledBuildError):
        build(request, work, _Stages(cancel_in="build"))
    assert list(work.iterdir()) == []
    assert list(store.list_pointers("keys")) == []


@pytest.mark.slow
def test_an_engine_changed_in_the_store_is_refused_when_it_is_fetched(
    small_request: BuildRequest, store: Store, work: Path
) -> None:
    manifest = build(small_request, work, SilentReporter())
    blob = Path(small_request.store) / blob_name(manifest.files[0].digest)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    with pytest.raises(StoreError) as refusal:
        store.get_files(manifest.files, work / "engine")
    assert refusal.value.reason == "Tampered"


def _swap_model(store: Store, preparation: Preparation, model: Path) -> None:
    """Let the stored preparation name another model, as a fault of the preparation would."""
    files = store.put_files(model.parent, [model])
    wrong = preparation.model_copy(update={"model": files})
    store.replace_pointer(preparation_pointer(preparation.preparation_key), wrong.to_json())
