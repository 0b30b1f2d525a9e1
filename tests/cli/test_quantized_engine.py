"""An INT8 engine from a folder of samples, as a user builds and serves it, and a calibration that the gate stops."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.cli.conftest import CommandLine
from tests.prepare.oriented_classifier import samples, write_classifier

pytestmark = pytest.mark.slow

DOCUMENT = """\
apiVersion: enginesmith.io/v1alpha1
kind: InferenceEngine
metadata: {name: stripes}
spec:
  model: {uri: model.onnx}
  precision: {default: int8, calibration: CALIBRATION}
  profiles:
    - inputs: {image: {min: [1, 1, 20, 20], opt: [2, 1, 20, 20], max: [4, 1, 20, 20]}}
  serving: {drainDelay: 100ms}
  targets:
    - {name: cpu, backend: onnxruntime}
"""


@pytest.fixture
def stripes(tmp_path: Path) -> CommandLine:
    """Return a command line in a folder with a classifier, 80 samples and a document."""
    write_classifier(tmp_path / "model.onnx")
    (tmp_path / "data").mkdir()
    for name, inputs in samples(2000, 80):
        np.savez(tmp_path / "data" / f"{name}.npz", allow_pickle=False, **inputs)
    (tmp_path / "engine.yaml").write_text(DOCUMENT.replace("CALIBRATION", "data"))
    return CommandLine(tmp_path)


def test_an_engine_in_int8_is_served_and_a_broken_calibration_is_stopped(stripes: CommandLine) -> None:
    with stripes.up() as server:
        answer = stripes.run("infer", "stripes", "--address", server.address)
        said = server.log.read_text()
        assert server.stop() == 0
    assert answer.returncode == 0, answer.stderr
    built = stripes.run("build", "engine.yaml")
    assert "held-out samples" in built.stdout
    alarm = "alarm: the agreement on 16 held-out samples says little: give at least 30"
    assert alarm in built.stderr
    assert alarm in said

    with stripes.up() as again:
        second = again.log.read_text()
    stages = {json.loads(line)["stage"] for line in second.splitlines() if line.startswith("{")}
    assert not {"fetch", "quantize", "build"} & stages

    narrow = "{source: data, method: percentile, percentile: 51}"
    (stripes.folder / "narrow.yaml").write_text(DOCUMENT.replace("CALIBRATION", narrow))
    refused = stripes.run("build", "narrow.yaml")
    assert refused.returncode != 0
    assert "output 'probabilities'" in refused.stderr
    assert "the first tensor whose SQNR falls: tensor 'image'" in refused.stderr


def test_a_document_whose_int8_engine_fails_its_gate_is_served_in_the_next_precision(stripes: CommandLine) -> None:
    narrow = "{source: data, method: percentile, percentile: 51}"
    document = DOCUMENT.replace("CALIBRATION", f"{narrow}, fallback: [fp16, fp32]")
    (stripes.folder / "engine.yaml").write_text(document)
    with stripes.up() as server:
        assert server.models == ("stripes",)
        first = server.log.read_text()
        assert server.stop() == 0
    said = "fp16 is used in place of int8, which failed its gate (verification: "
    assert first.count(said) == 1
    assert "output 'probabilities'" in first

    again = stripes.run("build", "engine.yaml", "--output", "json")
    (built,) = json.loads(again.stdout)
    assert (built["precision"], built["wasStored"]) == ("fp16", True)
    assert any(said in warning for warning in built["warnings"])
    stages = {json.loads(line)["stage"] for line in again.stderr.splitlines() if line.startswith("{")}
    assert not {"quantize", "build"} & stages, "the failed engine is not built again"
    assert said in stripes.run("plan", "engine.yaml").stdout


def test_a_model_that_cannot_be_quantised_is_built_in_the_next_precision(stripes: CommandLine) -> None:
    image, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 20, 20]) for name in ("image", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["y"])], "relu", [image], [out])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), stripes.folder / "model.onnx")
    (stripes.folder / "engine.yaml").write_text(DOCUMENT.replace("CALIBRATION", "data, fallback: [fp32]"))
    built = stripes.run("build", "engine.yaml")
    assert built.returncode == 0, built.stderr
    assert built.stderr.count("fp32 is used in place of int8, which the model cannot be had in (") == 1
    assert "nothing to quantise" in built.stderr
