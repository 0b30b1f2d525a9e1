"""`enginesmith accuracy` as a user starts it: real preparations and builds, and what it says of bad input."""

import json
import re

import numpy as np
import pytest
from tests.cli.conftest import CommandLine
from tests.prepare.oriented_classifier import samples, write_classifier

from enginesmith_cli.main import main

_DOCUMENT = """\
apiVersion: enginesmith.io/v1alpha1
kind: InferenceEngine
metadata: {name: stripes}
spec:
  model: {uri: stripes.onnx}
  precision: {default: int8, calibration: calibration}
  profiles:
    - inputs:
        image: {min: [1, 1, 20, 20], opt: [1, 1, 20, 20], max: [2, 1, 20, 20]}
  targets:
    - {name: gpu, gpu: {minMemory: 4Gi}}
    - {name: cpu, backend: onnxruntime, standby: true}
"""


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A folder with a classifier, its document and its data, and a home that all of these tests use."""
    folder = tmp_path_factory.mktemp("stripes")
    write_classifier(folder / "stripes.onnx")
    (folder / "engine.yaml").write_text(_DOCUMENT)
    without = _DOCUMENT.replace("{default: int8, calibration: calibration}", "fp32")
    (folder / "fp32.yaml").write_text(without)
    (folder / "several.yaml").write_text(f"{_DOCUMENT}---\n{_DOCUMENT.replace('name: stripes', 'name: other')}")
    for name, first, count in (("calibration", 2000, 40), ("samples", 3000, 6)):
        (folder / name).mkdir()
        for sample, inputs in samples(first, count):
            np.savez(folder / name / f"{sample}.npz", image=inputs["image"])
    (folder / "empty").mkdir()
    (folder / "wide").mkdir()
    np.save(folder / "wide" / "0.npy", np.zeros((1, 1, 20, 21), np.float32))
    return CommandLine(folder)


@pytest.mark.slow
def test_it_compares_precisions_on_held_out_samples_and_writes_a_report_that_needs_nothing_else(
    stripes: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("accuracy", "engine.yaml", "--precision", "int8", "--most", "5", "--layers", "2", "--output", "json")
    monkeypatch.chdir(stripes.folder)
    monkeypatch.setenv("ENGINESMITH_LOG_FORMAT", "json")
    assert main([*words, "--report", "out/report.html", "--pictures", "out", "--home", str(stripes.home)]) == 0
    answer = capsys.readouterr()
    found = json.loads(answer.out)
    assert found["model"] == "stripes"
    assert found["samples"] == {"count": 5, "source": "held-out samples of calibration", "generated": False}
    whole, tensorrt, own = found["precisions"]
    assert [one["precision"] for one in (whole, tensorrt, own)] == ["fp32", "int8", "int8 onnxruntime"]
    assert whole["agreement"] == 1.0
    assert "sqnrDb" not in whole["outputs"][0], "FP32 equals itself"
    for row in (tensorrt, own):
        assert row["agreement"] > 0.7
        assert 10 < row["outputs"][0]["sqnrDb"] < 90
        assert 0 < row["outputs"][0]["meanRelativeError"] < 0.3
        assert row["modelBytes"] < whole["modelBytes"]
        assert "residual" in [layer["node"] for layer in row["layers"]]
    # What the cast keeps in FP32 is in the model for TensorRT alone.
    assert own["kept"] == 0
    assert "gate" not in tensorrt, "this machine builds from the other one"
    assert whole["gate"] == own["gate"] == "passed"
    assert whole["latencyMs"].keys() == own["latencyMs"].keys()
    assert any("no GPU" in note for note in found["notes"])
    assert any("argmax" in note for note in found["notes"])
    stages = [json.loads(line)["stage"] for line in answer.err.splitlines() if '"begin"' in line]
    assert stages == ["fp32", "int8"]
    assert list((stripes.home / "work").iterdir()) == []
    page = (stripes.folder / "out" / "report.html").read_text()
    assert page.count("<svg") == 4
    assert not re.search(r"(src|href)=|@import|url\(", page), "it fetches something"
    for name in ("precisions", "size", "latency", "layers"):
        assert (stripes.folder / "out" / f"stripes-{name}.svg").read_text() in f"{page}\n"


@pytest.mark.slow
def test_a_gate_that_fails_is_said_of_the_model_that_the_engine_was_built_from(
    stripes: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (stripes.folder / "strict.yaml").write_text(f"{_DOCUMENT}  verification: {{limit: 1.0e-6}}\n")
    monkeypatch.chdir(stripes.folder)
    words = ("accuracy", "strict.yaml", "--precision", "int8", "--most", "2", "--output", "json")
    assert main([*words, "--home", str(stripes.home)]) == 0
    rows = {row["precision"]: row for row in json.loads(capsys.readouterr().out)["precisions"]}
    assert rows["int8 onnxruntime"]["gate"] == "failed"
    assert "answers differ" in rows["int8 onnxruntime"]["failure"]
    assert {"gate", "failure"}.isdisjoint(rows["int8"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fp32.yaml",), "judged on generated inputs"),
        (("fp32.yaml", "--samples", "samples", "--most", "4"), "4 samples of"),
    ],
)
def test_it_says_what_was_compared_on(
    stripes: CommandLine,
    words: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(stripes.folder)
    assert main(["accuracy", *words, "--precision", "fp32", "--home", str(stripes.home)]) == 0
    assert said in capsys.readouterr().out


_WRONG = {
    "several documents": (("several.yaml",), 10, "it has stripes, other. Add --name stripes"),
    "int8 without data": (("fp32.yaml", "--precision", "int8"), 10, "int8 needs calibration data"),
    "a report that cannot be written": (("engine.yaml", "--report", "engine.yaml/r.html"), 18, "engine.yaml/r.html"),
}


@pytest.mark.parametrize("case", _WRONG)
def test_bad_input_is_named_before_anything_is_prepared(
    stripes: CommandLine, case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, code, said = _WRONG[case]
    monkeypatch.chdir(stripes.folder)
    assert main(["accuracy", *words, "--home", str(stripes.folder / "elsewhere")]) == code
    assert said in capsys.readouterr().err
    assert not (stripes.folder / "elsewhere").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "code", "said"),
    [("empty", 12, "no calibration data"), ("nowhere", 12, "nowhere"), ("wide", 10, "0.npy")],
)
def test_samples_that_do_not_fit_the_model_are_named(
    stripes: CommandLine,
    folder: str,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(stripes.folder)
    assert main(["accuracy", "fp32.yaml", "--samples", folder, "--home", str(stripes.home)]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--precision", "fp12"), "'fp12' is not one of fp32, fp16, bf16, int8, fp8"),
        (("--precision", "tf32"), "'tf32' is not one of"),
        (("--most", "0"), "not a whole number from 1 to 100000"),
        (("--layers", "none"), "not a whole number"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(
    words: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["accuracy", "engine.yaml", *words])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
