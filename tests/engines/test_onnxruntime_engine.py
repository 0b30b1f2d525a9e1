"""The onnxruntime backend: its engine file, its instances, its options and its refusals."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.errors import BuildError, EngineRefusedError, InferenceError, SpecError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.engines.interface import BuildJob, on_host
from enginesmith_runtime.engines.onnxruntime.backend import OnnxRuntimeBuilder
from enginesmith_runtime.engines.onnxruntime.engine import OnnxRuntimeEngine, OnnxRuntimeLoader
from enginesmith_runtime.engines.onnxruntime.options import session_options

WriteModel = Callable[..., Path]
MakeJob = Callable[..., BuildJob]
MakeManifest = Callable[..., Manifest]
LoadProduct = Callable[..., OnnxRuntimeEngine]


class _Silent:
    """A ProgressSink that never stops a build."""

    def phase(self, name: str, *, steps: int, parent: str | None = None) -> None:
        """Ignore it."""

    def step(self, name: str, step: int) -> bool:  # noqa: ARG002 - the ProgressSink's signature
        return True

    def finish(self, name: str) -> None:
        """Ignore it."""


_X = TensorSpec(name="x", dtype=DType.FP32, shape=(-1, 4))
_Y = TensorSpec(name="y", dtype=DType.FP32, shape=(-1, 4))
_X_INFO = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
_Y_INFO = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])


@pytest.fixture
def product(write_model: WriteModel, make_job: MakeJob) -> BuildJob:
    """Return a job for y = relu(x @ w), w = 2 I."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["b"]), helper.make_node("Relu", ["b"], ["y"])]
    return make_job(write_model(nodes, [_X_INFO], [_Y_INFO], w=np.eye(4, dtype=np.float32) * 2), (_X,), (_Y,))


@pytest.fixture
def load_product(product: BuildJob, make_manifest: MakeManifest) -> LoadProduct:
    """Return a loader of the product: `load_product(options, toolchain={...})`."""
    built = OnnxRuntimeBuilder().build(product, _Silent())
    manifest = make_manifest(product, built)

    def load(options: Mapping[str, str] | None = None, **key_inputs: object) -> OnnxRuntimeEngine:
        inputs = manifest.key_inputs.model_copy(update=key_inputs)
        return OnnxRuntimeLoader().load(
            manifest.model_copy(update={"key_inputs": inputs}), product.output, options or {}
        )

    return load


def test_the_engine_is_the_optimised_model_and_says_what_is_in_it(product: BuildJob) -> None:
    built = OnnxRuntimeBuilder().build(product, _Silent())
    assert [path.name for path in built.files] == ["model.onnx"]
    assert onnx.load(built.files[0]).graph.node
    assert built.inspector["providers"] == {"CPUExecutionProvider": built.inspector["nodes"]}
    assert built.inspector["weights"] == {"FLOAT": 1}


def test_large_weights_lie_beside_the_model_and_the_engine_still_runs(
    product: BuildJob, make_manifest: MakeManifest
) -> None:
    # The threshold reads the facts: the weights themselves may be small.
    facts = product.preparation.facts.model_copy(update={"size_bytes": 2 << 30})
    model = onnx.load(product.model)
    weights = np.zeros((4, 512), np.float32)
    weights[:, :4] = np.eye(4) * 2
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(model, product.model)
    job = BuildJob(
        request=product.request,
        preparation=product.preparation.model_copy(update={"facts": facts}),
        model=product.model,
        output=product.output,
        device=product.device,
    )
    built = OnnxRuntimeBuilder().build(job, _Silent())
    assert [path.name for path in built.files] == ["model.onnx", "model.onnx.data"]
    engine = OnnxRuntimeLoader().load(make_manifest(job, built), job.output, {})
    with engine.open_instance() as instance:
        answer = on_host(instance.infer({"x": np.ones((1, 4), np.float32)}, profile=0, outputs=["y"]))
    assert answer["y"][0, :4].tolist() == [2.0] * 4


def test_instances_of_one_engine_run_at_the_same_time_with_their_own_answers(load_product: LoadProduct) -> None:
    engine = load_product({"intraOpThreads": "1"})
    wrong: list[int] = []

    def work(seed: int) -> None:
        with engine.open_instance() as instance:
            for number in range(200):
                value = np.full((1 + number % 3, 4), seed + number, np.float32)
                answer = on_host(instance.infer({"x": value}, profile=0, outputs=["y"]))["y"]
                if not np.array_equal(answer, value * 2):
                    wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    engine.close()


@pytest.mark.parametrize(
    ("texts", "want"),
    [
        (["plain", "ümläut", ""], [b"plain", "ümläut".encode(), b""]),
        ([b"bytes", b"nul\x00inside"], [b"bytes", b"nul\x00inside"]),
    ],
)
def test_bytes_go_in_and_come_out_as_they_are(
    texts: list[object], want: list[bytes], write_model: WriteModel, make_job: MakeJob, make_manifest: MakeManifest
) -> None:
    model = write_model(
        [helper.make_node("Identity", ["s"], ["t"])],
        [helper.make_tensor_value_info("s", TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("t", TensorProto.STRING, ["n"])],
    )
    specs = [TensorSpec(name=name, dtype=DType.BYTES, shape=(-1,)) for name in ("s", "t")]
    job = make_job(model, (specs[0],), (specs[1],))
    engine = OnnxRuntimeLoader().load(make_manifest(job, OnnxRuntimeBuilder().build(job, _Silent())), job.output, {})
    with engine.open_instance() as instance:
        answer = on_host(instance.infer({"s": np.array(texts, dtype=object)}, profile=0, outputs=["t"]))
        assert answer["t"].tolist() == want
        with pytest.raises(SpecError) as refusal:
            instance.infer({"s": np.array([b"\xff\xfe"], dtype=object)}, profile=0, outputs=["t"])
    assert refusal.value.reason == "BytesNotUtf8"


def test_an_inference_that_fails_leaves_the_instance_usable(
    write_model: WriteModel, make_job: MakeJob, make_manifest: MakeManifest
) -> None:
    model = write_model(
        [helper.make_node("Gather", ["w", "i"], ["y"])],
        [helper.make_tensor_value_info("i", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        w=np.array([5.0, 6.0], np.float32),
    )
    inputs = (TensorSpec(name="i", dtype=DType.INT64, shape=(-1,)),)
    job = make_job(model, inputs, (TensorSpec(name="y", dtype=DType.FP32, shape=(-1,)),))
    engine = OnnxRuntimeLoader().load(make_manifest(job, OnnxRuntimeBuilder().build(job, _Silent())), job.output, {})
    with engine.open_instance() as instance:
        with pytest.raises(InferenceError) as failure:
            instance.infer({"i": np.array([7])}, profile=0, outputs=["y"])
        assert "out of" in str(failure.value)
        answer = on_host(instance.infer({"i": np.array([1])}, profile=0, outputs=["y"]))
        assert answer["y"].tolist() == [6.0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"intraOpThreads": "2", "interOpThreads": "1", "executionMode": "parallel"},
        {"memoryPattern": "false", "cpuArena": "false", "spinning": "false"},
    ],
)
def test_every_known_option_is_taken(options: dict[str, str], load_product: LoadProduct) -> None:
    with load_product(options).open_instance() as instance:
        assert instance.infer({"x": np.ones((1, 4), np.float32)}, profile=0, outputs=["y"])["y"].shape == (1, 4)


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({"threads": "2"}, "known are intraOpThreads"),
        ({"intraOpThreads": "many"}, "'many'"),
        ({"intraOpThreads": "0"}, "'0'"),
        ({"spinning": "yes"}, "'yes'"),
        ({"executionMode": "fast"}, "'fast'"),
    ],
)
def test_an_option_that_is_wrong_is_refused_by_name(
    options: dict[str, str], want: str, load_product: LoadProduct
) -> None:
    with pytest.raises(SpecError) as refusal:
        load_product(options)
    assert refusal.value.reason == "BackendOptionInvalid"
    assert want in str(refusal.value)
    assert next(iter(options)) in refusal.value.where


@pytest.mark.parametrize(
    ("key_inputs", "want_reason"),
    [({"backend_version": "1.2.3"}, "SameVersion"), ({"arch": "s390x"}, "SameArchitecture")],
)
def test_an_engine_of_another_version_or_machine_is_refused(
    key_inputs: dict[str, object], want_reason: str, load_product: LoadProduct
) -> None:
    with pytest.raises(EngineRefusedError) as refusal:
        load_product(**key_inputs)
    assert refusal.value.reason == want_reason
    assert refusal.value.remedy


def test_a_file_that_is_no_model_is_refused_with_the_library_s_words(
    product: BuildJob, load_product: LoadProduct
) -> None:
    (product.output / "model.onnx").write_bytes(b"\x00" * 100)
    with pytest.raises(EngineRefusedError) as refusal:
        load_product()
    assert refusal.value.reason == "EngineUnreadable"


def test_a_provider_that_the_installed_library_lacks_is_refused_with_its_package(product: BuildJob) -> None:
    toolchain = product.request.toolchain.model_copy(update={"provider": "openvino"})
    job = BuildJob(
        request=product.request.model_copy(update={"toolchain": toolchain}),
        preparation=product.preparation,
        model=product.model,
        output=product.output,
        device=product.device,
    )
    with pytest.raises(BuildError) as refusal:
        OnnxRuntimeBuilder().build(job, _Silent())
    assert refusal.value.reason == "ProviderMissing"
    assert "onnxruntime-openvino" in refusal.value.remedy


def test_a_node_without_an_implementation_is_named(write_model: WriteModel, make_job: MakeJob) -> None:
    model = write_model([helper.make_node("Unheard", ["x"], ["y"], name="odd")], [_X_INFO], [_Y_INFO])
    with pytest.raises(BuildError) as refusal:
        OnnxRuntimeBuilder().build(make_job(model, (_X,), (_Y,)), _Silent())
    assert refusal.value.reason == "UnsupportedOperators"
    assert "Unheard" in refusal.value.why


@pytest.mark.parametrize(("cpus", "instances", "want_threads"), [(8, 2, 7), (8, 8, 1), (2, 2, 1), (1, 4, 1)])
def test_the_threads_of_all_instances_are_no_more_than_the_cpus(cpus: int, instances: int, want_threads: int) -> None:
    chosen = session_options(onnxruntime, {}, instances=instances, cpus=cpus)
    assert chosen.intra_op_num_threads == want_threads
    # The thread of the instance is one of them, so the session adds one less.
    assert want_threads - 1 + instances <= max(cpus, instances)
    assert chosen.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_one_instance_has_all_cpus() -> None:
    assert session_options(onnxruntime, {}, cpus=8).intra_op_num_threads == 8


def test_an_option_goes_before_the_share_of_an_instance() -> None:
    chosen = session_options(onnxruntime, {"intraOpThreads": "3", "spinning": "true"}, instances=2, cpus=2)
    assert chosen.intra_op_num_threads == 3
    assert chosen.get_session_config_entry("session.intra_op.allow_spinning") == "1"
