"""Right documents load, and are written again as they were."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from enginesmith_contract.backends import Backend, Precision, PrecisionPolicy
from enginesmith_contract.build_request import BuildOptions, PluginLibrary
from enginesmith_contract.errors import SpecError
from enginesmith_contract.preparation import ModelSource
from enginesmith_contract.profiles import Profile, ShapeRange, ValueRange
from enginesmith_contract.verification import InputValues, OutputGate, VerificationPolicy
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
    profiles,
    verification_policy,
)

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
    assert spec.toolchain.tensorrt == ">=10.9,<12"
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


def test_every_kind_of_value_reaches_the_contract(every_field: str) -> None:
    spec = load_documents(every_field, where="x")[0].spec

    assert model_source(spec) == ModelSource(
        uri=spec.model.uri, sha256=spec.model.sha256, options={"region": "eu-west-1"}
    )
    assert precision_policy(spec) == PrecisionPolicy(
        default=Precision.INT8,
        keep=("Softmax", "/head/*"),
        auto_keep=True,
        calibration="s3://models/calibration.npz",
    )
    images = ShapeRange(min=(1, 3, 224, 224), opt=(8, 3, 224, 224), max=(32, 3, 224, 224))
    top = ShapeRange(min=(1,), opt=(1,), max=(1,), values=ValueRange(min=(1,), opt=(5,), max=(100,)))
    assert profiles(spec) == (Profile(name="default", inputs={"images": images, "k": top}),)
    assert verification_policy(spec) == VerificationPolicy(
        limit=0.01,
        mismatches=0.001,
        inputs={
            "images": InputValues(range=(0, 1)),
            "temperature": InputValues(constant=0.5),
            "tokens": InputValues(npz="s3://models/tokens.npz"),
        },
        outputs={"boxes": OutputGate(limit=0.05), "classes": OutputGate(mismatches=0.01)},
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
