"""`enginesmith plan` as a person runs it."""

import io
import json
from pathlib import Path

import pytest
import yaml

from enginesmith_cli.main import main
from enginesmith_contract.exit_codes import ExitCode

NODES = Path(__file__).parent / "data" / "nodes.yaml"
HEAD = "apiVersion: enginesmith.io/v1alpha1\nkind: InferenceEngine\nmetadata: {name: NAME}\n"
MODEL = "model: {uri: 's3://models/resnet50.onnx'}"


def _write(folder: Path, *targets: str) -> Path:
    file = folder / "engine.yaml"
    documents = [
        HEAD.replace("NAME", f"engine-{number}") + f"spec: {{{MODEL}, targets: [{target}]}}\n"
        for number, target in enumerate(targets)
    ]
    file.write_text("---\n".join(documents), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("targets", "want_code"),
    [
        (["{name: cpu, backend: onnxruntime}"], ExitCode.OK),
        (["{name: gpu, gpu: {product: NVIDIA-Nothing}}, {name: cpu, backend: onnxruntime}"], ExitCode.OK),
        (["{name: gpu, gpu: {product: NVIDIA-Nothing}}"], ExitCode.PLAN_REFUSED),
        (["{name: cpu, backend: onnxruntime}", "{name: gpu, gpu: {product: NVIDIA-Nothing}}"], ExitCode.PLAN_REFUSED),
    ],
)
def test_the_exit_code_says_whether_every_document_has_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], targets: list[str], want_code: ExitCode
) -> None:
    code = main(["plan", str(_write(tmp_path, *targets)), "--home", str(tmp_path)])

    assert code == want_code
    assert capsys.readouterr().out.count("preparation pending") == len(targets)


def test_a_fleet_from_a_file_is_planned_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _write(tmp_path, "{name: ada, gpu: {product: NVIDIA-L4}, backend: tensorrt-rtx}")

    code = main(["plan", str(file), "--nodes", str(NODES), "--home", str(tmp_path)])

    assert code == ExitCode.OK
    assert "l4-gce-driver595" in capsys.readouterr().out


def test_nodes_come_from_standard_input_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _write(tmp_path, "{name: ada, gpu: {product: NVIDIA-L4}, backend: tensorrt-rtx}")
    monkeypatch.setattr("sys.stdin", io.StringIO(NODES.read_text(encoding="utf-8")))

    assert main(["plan", str(file), "--nodes", "-", "--home", str(tmp_path)]) == ExitCode.OK
    assert "l4-gce-driver595" in capsys.readouterr().out


def test_a_file_of_something_else_is_no_list_of_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _write(tmp_path, "{name: cpu, backend: onnxruntime}")

    assert main(["plan", str(file), "--nodes", str(file), "--home", str(tmp_path)]) == ExitCode.SPEC_INVALID
    assert "it holds an object of kind InferenceEngine" in capsys.readouterr().err


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_a_plan_is_a_document_for_programs_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, read: type
) -> None:
    file = _write(tmp_path, "{name: cpu, backend: onnxruntime}")

    assert main(["plan", str(file), "--home", str(tmp_path), "-o", output]) == ExitCode.OK

    document = read(capsys.readouterr().out)
    assert document["name"] == "engine-0"
    assert document["targets"][0]["engines"][0]["toolchain"]["backend"] == "onnxruntime"


def test_a_wrong_document_and_a_wrong_nodes_file_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _write(tmp_path, "{name: cpu, backend: onnxruntime}")
    missing = tmp_path / "missing.yaml"

    assert main(["plan", str(missing)]) == ExitCode.SPEC_INVALID
    assert main(["plan", str(file), "--nodes", str(missing), "--home", str(tmp_path)]) == ExitCode.SPEC_INVALID
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_local_models_keys_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], ocr_models: Path) -> None:
    shapes = "{min: [1, 3, 48, 192], opt: [4, 3, 48, 192], max: [16, 3, 48, 192]}"
    profile = f"profiles: [{{inputs: {{x: {shapes}}}}}]"
    targets = "targets: [{name: cpu, backend: onnxruntime}]"
    file = tmp_path / "engine.yaml"
    spec = f"spec: {{model: {{uri: '{ocr_models / 'cls.onnx'}'}}, {profile}, {targets}}}\n"
    file.write_text(HEAD.replace("NAME", "cls") + spec, encoding="utf-8")

    assert main(["plan", str(file), "--home", str(tmp_path)]) == ExitCode.OK

    assert "(to be built)" in capsys.readouterr().out
