"""Files with several documents: every line names its document, and a failure ends no other's work."""

import json
import shutil
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

pytestmark = pytest.mark.slow

CommandLine = Any

_DOCUMENT = """\
apiVersion: enginesmith.io/v1alpha1
kind: InferenceEngine
metadata: {{name: {name}}}
spec:
  model: {{uri: {uri}}}
  profiles: [{{inputs: {{x: {{min: [1, 3, 48, 192], opt: [1, 3, 48, 192], max: [4, 3, 48, 192]}}}}}}]
  targets: [{{name: {target}, backend: {backend}}}]
"""


def _write(command_line: CommandLine, *documents: tuple[str, str, str]) -> None:
    """Write documents of name, model and backend."""
    texts = [
        _DOCUMENT.format(name=name, uri=uri, backend=backend, target="cpu" if backend == "onnxruntime" else "gpu")
        for name, uri, backend in documents
    ]
    (command_line.folder / "several.yaml").write_text("---\n".join(texts))


_ONE_FAILS = [
    (("first", "missing.onnx", "onnxruntime"), 12, "missing.onnx"),
    (("first", "cls.onnx", "tensorrt"), 11, "no target can be built"),
    (("first", "text.onnx", "onnxruntime"), 13, "text.onnx"),
]


@pytest.mark.parametrize(("failing", "want_code", "want_fragment"), _ONE_FAILS, ids=["no file", "no GPU", "no model"])
def test_a_document_that_fails_is_named_and_the_others_are_built(
    command_line: CommandLine, failing: tuple[str, str, str], want_code: int, want_fragment: str
) -> None:
    (command_line.folder / "text.onnx").write_text("this is no model")
    _write(command_line, failing, ("second", "cls.onnx", "onnxruntime"))
    answer = command_line.run("build", "several.yaml")
    assert answer.returncode == want_code, answer.stderr
    (line,) = answer.stdout.splitlines()
    assert line.startswith("second/cpu  ")
    said = [one for one in answer.stderr.splitlines() if one.startswith("enginesmith: ")]
    assert len(said) == 1
    assert said[0].startswith("enginesmith: first")
    assert want_fragment in answer.stderr


def test_every_line_of_progress_names_its_document(command_line: CommandLine) -> None:
    _write(command_line, ("first", "cls.onnx", "onnxruntime"), ("second", "cls.onnx", "onnxruntime"))
    answer = command_line.run("build", "several.yaml", "--output", "json")
    assert answer.returncode == 0, answer.stderr
    assert [one["name"] for one in json.loads(answer.stdout)] == ["first", "second"]
    lines = [json.loads(line) for line in answer.stderr.splitlines() if line.startswith("{")]
    assert lines
    for line in lines:
        named = line["detail"] if line["event"] == "begin" else line["facts"]["document"]
        assert named.startswith(("first", "second"))


def test_one_target_that_fails_ends_no_other(command_line: CommandLine) -> None:
    matrix = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 3])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    # No TensorRT has the operator.
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"])], "det", [matrix], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, command_line.folder / "det.onnx")
    (command_line.folder / "several.yaml").write_text(
        "apiVersion: enginesmith.io/v1alpha1\nkind: InferenceEngine\nmetadata: {name: det}\n"
        "spec:\n  model: {uri: det.onnx}\n  targets:\n"
        "    - {name: rtx, backend: tensorrt-rtx, gpu: {product: NVIDIA-L40S}}\n"
        "    - {name: cpu, backend: onnxruntime}\n"
    )
    answer = command_line.run("build", "several.yaml")
    assert answer.returncode != 0
    assert "enginesmith: det/rtx: " in answer.stderr
    (line,) = answer.stdout.splitlines()
    assert line.startswith("det/cpu  ")


def test_up_serves_the_documents_that_can_be_served(command_line: CommandLine) -> None:
    _write(command_line, ("first", "missing.onnx", "onnxruntime"), ("second", "cls.onnx", "onnxruntime"))
    with command_line.up("several.yaml") as server:
        assert server.models == ("second",)
        assert "enginesmith: first" in server.log.read_text()
    _write(command_line, ("first", "missing.onnx", "onnxruntime"), ("third", "missing.onnx", "onnxruntime"))
    answer = command_line.run("up", "several.yaml", "--address", "127.0.0.1:0", "--metrics-address", "none")
    assert answer.returncode == 12
    assert "enginesmith: first" in answer.stderr
    assert "enginesmith: third" in answer.stderr


def test_serve_names_the_document_without_an_engine_and_serves_the_others(command_line: CommandLine) -> None:
    shutil.copy(command_line.folder / "cls.onnx", command_line.folder / "missing.onnx")
    _write(command_line, ("first", "cls.onnx", "onnxruntime"))
    answer = command_line.run("serve", "several.yaml", "--address", "127.0.0.1:0", "--metrics-address", "none")
    assert answer.returncode == 11
    assert "enginesmith: first/cpu: the store has no engine for it" in answer.stderr


def test_plan_names_the_document_whose_model_cannot_be_read(command_line: CommandLine) -> None:
    _write(command_line, ("first", "missing.onnx", "onnxruntime"), ("second", "cls.onnx", "onnxruntime"))
    answer = command_line.run("plan", "several.yaml")
    assert answer.returncode == 0, answer.stderr
    assert "enginesmith: first: " in answer.stderr
    assert answer.stdout.startswith("first\n")
    assert "\nsecond\n" in answer.stdout


def test_plan_and_build_agree_on_an_engine_for_a_gpu_that_is_elsewhere(command_line: CommandLine) -> None:
    (command_line.folder / "several.yaml").write_text(
        _DOCUMENT.format(name="cls", uri="cls.onnx", target="rtx", backend="tensorrt-rtx").replace(
            "name: rtx,", "name: rtx, gpu: {product: NVIDIA-L40S},"
        )
    )
    answer = command_line.run("plan", "several.yaml", "--output", "json")
    assert answer.returncode == 0, answer.stderr
    (target,) = json.loads(answer.stdout)["targets"]
    assert target["state"] == "buildOnly", target
    assert command_line.run("plan", "several.yaml").returncode == 0
