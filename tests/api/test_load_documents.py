"""Right documents load, and are written again as they were."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from enginesmith_contract.backends import Backend, Precision, PrecisionPolicy
from enginesmith_contract.build_request import BuildOptions, PluginLibrary
from enginesmith_contract.calibration import AutoKeep, Calibration, CalibrationMethod, ChannelOrder, ImageReading
from enginesmith_contract.errors import SpecError
from enginesmith_contract.metric_container import MetricContainer
from enginesmith_contract.preparation import ModelSource
from enginesmith_contract.preprocess import Preprocess
from enginesmith_contract.profiles import Profile, ShapeRange, ValueRange
from enginesmith_contract.verification import Decode, InputValues, OutputGate, VerificationPolicy
from enginesmith_operator.api.build import HardwareCompatibility, default_workspace_bytes
from enginesmith_operator.api.inference_engine import InferenceEngine, InferenceEngineSpec, warnings
from enginesmith_operator.api.load import load_documents, read_file
from enginesmith_operator.api.model import ModelSpec
from enginesmith_operator.api.serving import WhenFull
from enginesmith_operator.api.targets import DEFAULT_TARGETS
from enginesmith_operator.api.translate import (
    build_options,
    model_source,
    precision_policy,
    preprocess,
    profiles,
    verification_policy,
)
from enginesmith_operator.planning.fallback import following

Documents = Callable[[str], str]


def _load(text: str) -> InferenceEngine:
    (engine,) = load_documents(text, where="engine.yaml")
    return engine


def test_the_whole_example_loads(design_example: str) -> None:
    engine = _load(design_example)

    a100, ada, cpu = engine.spec.targets
    assert (engine.metadata.name, engine.metadata.namespace) == ("resnet50", "vision")
    assert engine.spec.precision.default is Precision.FP16
    assert engine.spec.build.workspace_bytes == 2 << 30
    assert engine.spec.build.timeout_seconds == 1800
    assert engine.spec.verification.limit == 0.01
    assert (a100.backend, a100.replicas) == (Backend.TENSORRT, 2)
    assert ada.gpu is not None
    assert (ada.gpu.min_memory_bytes, ada.gpu.compute_capability) == (20 << 30, "8.9")
    assert (cpu.backend, cpu.provider_or_default, cpu.standby) == (Backend.ONNXRUNTIME, "cpu", True)
    assert engine.spec.serving.drain_delay_seconds == 5
    assert warnings(engine.spec) == ()


def test_what_is_omitted_gets_the_documented_default(document_with: Documents) -> None:
    spec = _load(document_with("")).spec

    assert spec.precision.default is Precision.FP32
    assert spec.build.workspace_bytes is None
    assert (spec.build.optimization_level, spec.build.timeout_seconds) == (3, 1800)
    assert spec.build.hardware_compatibility is HardwareCompatibility.NONE
    assert spec.toolchain.tensorrt == ">=10,<12"
    assert spec.targets == DEFAULT_TARGETS
    assert (spec.serving.instances, spec.serving.drain_delay_seconds) == (2, 5)
    assert spec.rollout.when_full is WhenFull.WAIT
    assert spec.profiles == ()
    assert spec.store is None


@pytest.mark.parametrize("name", ["design_example", "every_field"])
def test_documents_are_written_as_the_user_wrote_them(name: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(name)
    engines = load_documents(text, where="engine.yaml")

    written = [engine.to_document() for engine in engines]

    # PyYAML reads 1e-2 as a string; JSON has no such doubt.
    wanted = list(yaml.safe_load_all(text.replace("1e-2", "0.01")))
    assert written == wanted
    assert load_documents(yaml.safe_dump_all(written), where="again.yaml") == engines
    assert load_documents(json.dumps(written[0]), where="engine.json") == engines[:1]


def test_documents_of_one_file_come_in_order(document_with: Documents) -> None:
    second = document_with("").replace("resnet50", "bert")

    engines = load_documents(f"---\n{document_with('')}---\n# nothing\n---\n{second}...\n", where="engine.yaml")

    assert [engine.metadata.name for engine in engines] == ["resnet50", "bert"]


def test_anchors_aliases_and_merge_keys_work_as_in_kubectl(document_with: Documents) -> None:
    spec = _load(
        document_with("""
        targets:
          - &base {name: a, replicas: 3, backend: onnxruntime}
          - {<<: *base, name: b, provider: &provider openvino}
          - {name: c, backend: onnxruntime, provider: *provider}
        """)
    ).spec

    assert [(target.name, target.replicas, target.provider) for target in spec.targets] == [
        ("a", 3, None),
        ("b", 3, "openvino"),
        ("c", 1, "openvino"),
    ]


def test_a_file_is_read_with_its_byte_order_mark(tmp_path: Path, design_example: str) -> None:
    path = tmp_path / "engine.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + design_example.encode())

    assert read_file(path) == load_documents(design_example, where="x")


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ("default: fp16, autoKeep: true", PrecisionPolicy(default=Precision.FP16, auto_keep=True)),
        ("default: fp16, autoKeep: false", PrecisionPolicy(default=Precision.FP16)),
        (
            "default: int8, calibration: s3://b/c/, autoKeep: true",
            PrecisionPolicy(default=Precision.INT8, calibration=Calibration(source="s3://b/c/"), auto_keep=AutoKeep()),
        ),
    ],
)
def test_short_forms_of_precision_are_read_and_written(
    document_with: Documents, fields: str, want: PrecisionPolicy
) -> None:
    engine = _load(document_with(f"precision: {{{fields}}}"))
    assert precision_policy(engine.spec) == want
    again = type(engine).model_validate(engine.model_dump(by_alias=True, mode="json"))
    assert precision_policy(again.spec) == want


def test_a_fallback_inherits_what_means_the_same_in_it(document_with: Documents) -> None:
    calibration = Calibration(source="s3://b/c/")
    fields = "default: fp8, keep: [Softmax], autoKeep: true, calibration: s3://b/c/, fallback: [int8, bf16, fp32]"
    engine: InferenceEngine | None = _load(document_with(f"precision: {{{fields}}}"))
    tried = []
    while engine is not None:
        tried.append(precision_policy(engine.spec))
        engine = following(engine)
    first = PrecisionPolicy(default=Precision.FP8, keep=("Softmax",), auto_keep=AutoKeep(), calibration=calibration)
    assert tried == [
        first,
        first.model_copy(update={"default": Precision.INT8}),
        PrecisionPolicy(default=Precision.BF16),
        PrecisionPolicy(default=Precision.FP32),
    ]


def test_every_kind_of_value_reaches_the_contract(every_field: str) -> None:
    spec = load_documents(every_field, where="x")[0].spec

    assert model_source(spec) == ModelSource(
        uri=spec.model.uri, sha256=spec.model.sha256, options={"region": "eu-west-1"}
    )
    assert preprocess(spec) == (
        Preprocess(
            input="images", source="uint8-nhwc", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255
        ),
    )
    assert precision_policy(spec) == PrecisionPolicy(
        default=Precision.INT8,
        keep=("Softmax", "/head/*", "from:features"),
        auto_keep=AutoKeep(budget=0.2, max_nodes=24, timeout_seconds=600, agreement=0.98),
        calibration=Calibration(
            source="s3://models/calibration/",
            digest="fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9",
            method=CalibrationMethod.PERCENTILE,
            percentile=99.9,
            max_samples=256,
            images=ImageReading(
                input="mask", channels=ChannelOrder.BGR, size=(224, 224), mean=(0.5,), std=(0.5,), scale=1 / 255
            ),
            held_out=0.25,
        ),
    )
    images = ShapeRange(min=(1, 224, 224, 3), opt=(8, 224, 224, 3), max=(32, 224, 224, 3))
    top = ShapeRange(min=(1,), opt=(1,), max=(1,), values=ValueRange(min=(1,), opt=(5,), max=(100,)))
    assert profiles(spec) == (Profile(name="default", inputs={"images": images, "k": top}),)
    assert verification_policy(spec) == VerificationPolicy(
        limit=0.01,
        mismatches=0.001,
        agreement=0.98,
        inputs={
            "images": InputValues(range=(0, 1)),
            "temperature": InputValues(constant=0.5),
            "tokens": InputValues(npz="s3://models/tokens.npz"),
        },
        outputs={
            "boxes": OutputGate(limit=0.05),
            "classes": OutputGate(mismatches=0.01),
            "scores": OutputGate(agreement=0.99, decode=Decode.ARGMAX, axis=1),
            "mask": OutputGate(decode=Decode.THRESHOLD, threshold=0.3),
        },
        metric_container=MetricContainer(
            image="registry.example/metrics/character-errors@sha256:5f1c9a6f4e0d3b2a1908f7e6d5c4b3a2918f7e6d5c4b3a2918f7e6d5c4b3a291",
            command=("python", "/metric.py"),
            args=("--language", "zh"),
            at_least=0,
            at_most=0.02,
        ),
    )
    assert build_options(spec) == BuildOptions(
        workspace_bytes=2 << 30,
        optimization_level=5,
        timeout_seconds=5400,
        hardware_compatibility="same-compute-capability",
        version_compatible=True,
        weight_streaming=True,
        refittable=True,
        plugins=(
            PluginLibrary(
                uri="s3://models/libplugin.so",
                sha256="2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
            ),
        ),
    )


@pytest.mark.parametrize(
    ("model_size_bytes", "want_bytes"), [(0, 1 << 30), (400 << 20, 1600 << 20), (1 << 34, 2 << 30)]
)
def test_an_omitted_workspace_goes_by_the_models_size(model_size_bytes: int, want_bytes: int) -> None:
    spec = InferenceEngineSpec(model=ModelSpec(uri="model.onnx"))

    assert default_workspace_bytes(model_size_bytes) == want_bytes
    assert build_options(spec, model_size_bytes=model_size_bytes).workspace_bytes == want_bytes
    assert build_options(spec).workspace_bytes is None


@pytest.mark.parametrize(
    ("lines", "want_path"),
    [
        ("build: {workspace: 256Mi}", "spec.build.workspace"),
        ("targets: [{name: a, backend: onnxruntime, standby: true}]", "spec.targets[0].standby"),
        ("targets: [{name: a, replicas: 0}]", "spec.targets"),
    ],
)
def test_what_is_allowed_but_doubtful_is_a_warning(lines: str, want_path: str, document_with: Documents) -> None:
    (warning,) = warnings(_load(document_with(lines)).spec)

    assert warning.startswith(f"{want_path}: ")


@pytest.mark.parametrize(
    ("version_range", "version", "want"),
    [
        (">=10.9,<12", "10.13.3.9", True),
        (">=10.9,<12", "12.0.0", False),
        ("==10.13.*", "10.13.3.9", True),
        (">=10.9", "not a version", False),
    ],
)
def test_a_version_range_is_judged_as_in_python_requirements(
    version_range: str,
    version: str,
    want: bool,  # noqa: FBT001 - a column of the table
    document_with: Documents,
) -> None:
    spec = _load(document_with(f'toolchain: {{tensorrt: "{version_range}"}}')).spec

    assert spec.toolchain.accepts_tensorrt(version) is want


def test_a_spec_error_is_the_error_of_every_wrong_file(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    (tmp_path / "large.yaml").write_bytes(b"#" * ((1 << 20) + 1))

    for name, want in [
        ("missing.yaml", "cannot be read"),
        ("latin.yaml", "latin.yaml:2: the file is not UTF-8"),
        ("large.yaml", "larger than"),
        (".", "cannot be read"),
    ]:
        with pytest.raises(SpecError) as caught:
            read_file(tmp_path / name)
        assert caught.value.reason == "SpecInvalid"
        assert want in str(caught.value)


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "engine.yaml")
    with pytest.raises(SpecError, match="a named pipe"):
        read_file(tmp_path / "engine.yaml")


def test_a_pipe_that_a_shell_opened_is_read(design_example: str) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        stream.write(design_example)
    try:
        assert read_file(f"/dev/fd/{reading}") == load_documents(design_example, where="x")
    finally:
        os.close(reading)
