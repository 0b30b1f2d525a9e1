"""`model.preprocess` from a document to an answer: the plan, the engine and the server speak of pixels."""

import pytest
from tests.cli.conftest import CLS, CommandLine

pytestmark = pytest.mark.slow

PIXELS = CLS.replace(
    "{uri: cls.onnx}",
    "{uri: cls.onnx, preprocess: [{input: x, from: uint8-nhwc, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}]}",
)
SHAPES = "{min: [1, 48, 192, 3], opt: [2, 48, 192, 3], max: [4, 48, 192, 3]}"


def test_a_document_with_pixels_is_planned_built_and_served(command_line: CommandLine) -> None:
    file = command_line.folder / "engine.yaml"
    file.write_text(PIXELS)
    refused = command_line.run("plan", "engine.yaml")
    assert "FixedDimension" in refused.stdout + refused.stderr
    file.write_text(PIXELS.replace("{min: [1, 3, 48, 192], opt: [2, 3, 48, 192], max: [4, 3, 48, 192]}", SHAPES))
    assert command_line.run("plan", "engine.yaml").returncode == 0
    with command_line.up() as server:
        answer = command_line.run("infer", "cls", "--address", server.address)
    assert answer.returncode == 0, answer.stderr
    assert "input    x  UINT8 [2, 48, 192, 3]" in answer.stdout


def test_an_input_that_the_model_has_not_is_named(command_line: CommandLine) -> None:
    (command_line.folder / "engine.yaml").write_text(PIXELS.replace("input: x", "input: y"))
    answer = command_line.run("build", "engine.yaml")
    assert answer.returncode == 10
    assert "model.preprocess, input y: the model has no such input: it has x" in answer.stderr
