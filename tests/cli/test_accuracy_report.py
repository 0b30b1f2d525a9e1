"""What the report of `enginesmith accuracy` says and draws, for figures that are given."""

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from enginesmith_cli.accuracy.candidates import candidates
from enginesmith_cli.accuracy.page import page
from enginesmith_cli.accuracy.plots import pictures
from enginesmith_cli.accuracy.report import Report, document, lines
from enginesmith_cli.accuracy.rows import Row, pareto_front
from enginesmith_cli.accuracy.samples import SampleFiles
from enginesmith_cli.accuracy.svg import ticks
from enginesmith_contract.auto_keep import AutoKeepResult, KeepSearch, KeptPoint, Sensitivity
from enginesmith_contract.backends import Precision
from enginesmith_contract.verification import Decode, OutputAgreement
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.load import load_documents
from enginesmith_runtime.prepare.accuracy.jobs import LayerError, Measured

_SEARCH = AutoKeepResult(
    tensorrt=KeepSearch(
        kept=("b",),
        reached=True,
        complete=True,
        curve=(
            KeptPoint(kept_nodes=0, kept_bytes=0, agreement=0.9, passed=False),
            KeptPoint(kept_nodes=2, kept_bytes=400, agreement=0.99, passed=True),
            KeptPoint(kept_nodes=1, kept_bytes=100, agreement=0.98, passed=True),
        ),
    ),
    samples=32,
    weight_bytes=1000,
    ranking=(Sensitivity(node="b", damage=0.1, size_bytes=100), Sensitivity(node="a", damage=0.0, size_bytes=300)),
)


def _row(
    label: str,
    agreement: float | None,
    *,
    size: int = 1000,
    latency: float | None = None,
    sqnr: float | None = 20.0,
    found: str | None = None,
    search: AutoKeepResult | None = None,
    layers: tuple[LayerError, ...] = (),
) -> Row:
    output = OutputAgreement(
        output="classes",
        decode=Decode.ARGMAX,
        inferred="its values add up to 1 along axis 1",
        axis=1,
        samples=32,
        answers=32,
        agreement=agreement,
        unproved=None if agreement is not None else "the samples have the same answer everywhere (3)",
        cosine=0.99,
        mean_relative_error=0.03,
        sqnr_db=sqnr,
        found=found,
    )
    return Row(
        label=label,
        measured=Measured(outputs=(output,), layers=layers),
        size_bytes=size,
        latency_ms={} if latency is None else {"line": latency},
        gate="passed" if latency is not None else "",
        auto_keep=search,
        search=None if search is None else search.tensorrt,
    )


def _report(*rows: Row, gpu: str | None = None, samples: str = "held-out samples of data & more") -> Report:
    about = {"model": "tiny", "document": "engine.yaml", "toolchain": "t 1", "gpu": gpu, "device": gpu or "no GPU"}
    return Report(about=about, samples=SampleFiles(paths=("a.npz",) * 32, source=samples), rows=rows)


def _engine(precision: str) -> InferenceEngine:
    text = f"""\
apiVersion: enginesmith.io/v1alpha1
kind: InferenceEngine
metadata: {{name: tiny}}
spec:
  model: {{uri: tiny.onnx}}
  precision: {precision}
  targets: [{{name: cpu, backend: onnxruntime}}]
"""
    (engine,) = load_documents(text, where="engine.yaml")
    return engine


@pytest.mark.parametrize(
    ("precision", "wanted", "labels"),
    [
        ("fp32", (), ["fp32", "fp16", "bf16"]),
        ("fp16", (), ["fp32", "fp16", "bf16"]),
        ("{default: fp16, keep: [Softmax]}", (), ["fp32", "fp16", "bf16", "fp16-file"]),
        ("{default: int8, calibration: data}", (Precision.FP16,), ["fp32", "fp16"]),
        ("{default: int8, calibration: data}", (Precision.INT8, Precision.FP32), ["fp32", "int8"]),
    ],
)
def test_each_precision_is_compared_whole_and_the_document_s_own_with_it(
    precision: str, wanted: Sequence[Precision], labels: list[str]
) -> None:
    found = candidates(_engine(precision), wanted)
    assert [one.label for one in found] == labels
    assert [one.engine.spec.precision.keep for one in found[:3]] == [()] * len(found[:3])


def test_int8_is_compared_without_kept_nodes_and_as_the_document_has_it() -> None:
    found = candidates(_engine("{default: int8, calibration: data, keep: [Softmax]}"), ())
    whole, own = (one.engine.spec.precision for one in found if one.label in {"int8", "int8-file"})
    assert whole.keep == ()
    assert whole.calibration == own.calibration
    assert own.keep == ("Softmax",)


def test_the_table_has_sizes_and_latencies_as_multiples_of_fp32() -> None:
    report = _report(_row("fp32", 1.0, latency=2.0, sqnr=None), _row("fp16", 0.995, size=500, latency=1.0), gpu="H200")
    text = "\n".join(lines(report))
    assert re.search(r"^fp32 +100\.00% .* equal +0 +0\.00 +1\.00x +2\.00 +passed$", text, re.MULTILINE)
    assert re.search(r"^fp16 +99\.50% .* 20\.0 +0 +0\.00 +0\.50x +1\.00 \(0\.50x\) +passed$", text, re.MULTILINE)
    assert "no GPU" not in text
    assert "generated" not in text


def test_a_precision_that_fails_is_a_row_with_one_short_line_and_its_whole_reason_in_the_document() -> None:
    reason = "it cannot be prepared:\n" + 40 * "reason "
    report = _report(_row("fp32", 1.0), Row(label="bf16", failure=reason))
    row = next(line for line in lines(report) if line.startswith("bf16"))
    assert row.endswith("... (--output json)")
    precisions = document(report)["precisions"]
    assert isinstance(precisions, list)
    assert precisions[1] == {"precision": "bf16", "failure": reason}


def test_notes_have_the_alarms_of_engines_and_of_models_without_one() -> None:
    judged = replace(_row("int8", 1.0, latency=1.0), alarms=("alarm: output 'classes': cosine 0.9",))
    measured = _row("int8 onnxruntime", 1.0, sqnr=3.0)
    notes = _report(_row("fp32", 1.0), judged, measured).notes
    assert "int8: alarm: output 'classes': cosine 0.9" in notes
    assert "int8 onnxruntime: alarm: output 'classes': SQNR 3.0 dB, usual above 10 dB" in notes


def test_notes_say_what_the_figures_do_not_prove() -> None:
    report = _report(
        _row("fp32", None), _row("fp16", None, latency=1.0), _row("int8", 0.5, latency=1.5, found="it has NaN"),
        samples="generated inputs",
    )  # fmt: skip
    notes = " ".join(report.notes)
    assert "judged on generated inputs" in notes
    assert "the agreement of classes proves little: the samples have the same answer everywhere (3)" in notes
    assert "int8, classes: it has NaN" in notes
    assert "slower than the engine in FP16: int8" in notes
    assert "alarm" not in notes
    assert report.rows[2].agreement == 0.0, "what is broken agrees in nothing"
    table = "\n".join(lines(report))
    assert re.search(r"^fp16 +- ", table, re.MULTILINE), "no agreement was found"


def test_the_page_has_every_picture_escapes_text_and_fetches_nothing() -> None:
    layer = LayerError(node="<one>", op="Conv", tensor="t", sqnr_db=12.0)
    rows = (
        _row("fp32", 1.0, latency=2.0, sqnr=None),
        _row("int8", 0.98, size=300, latency=1.0, layers=(layer, layer)),
        _row("int8-file", 0.99, size=400, latency=1.1, search=_SEARCH),
    )
    assert list(pictures(rows)) == [
        "precisions",
        "size",
        "latency",
        "sensitivity-int8-file",
        "search-int8-file",
        "layers",
    ]
    text = page(_report(*rows))
    assert text.count("<svg") == 6
    assert "data &amp; more" in text
    assert "&lt;one&gt;" in text
    assert "<one>" not in text
    assert not re.search(r"(src|href)=|@import|url\(", text)


def test_pictures_are_drawn_for_figures_without_a_spread_and_for_none() -> None:
    assert pictures(()) == {}
    assert list(pictures((_row("fp32", None),))) == ["precisions"]
    assert set(pictures((_row("fp32", 1.0, size=0), _row("fp16", 1.0, size=0)))) == {"precisions", "size"}


def test_the_front_has_what_costs_less_or_gives_more_than_all_others() -> None:
    assert pareto_front([(3.0, 0.9), (1.0, 0.5), (2.0, 0.4), (4.0, 1.0), (4.0, 1.0)]) == (1, 0, 3, 4)
    assert pareto_front([]) == ()


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 10.0, ["0", "2", "4", "6", "8", "10"]),
        (94.5, 100.0, ["96", "98", "100"]),
        (0.0, 0.004, ["0", "0.001", "0.002", "0.003", "0.004"]),
        (-52.0, -9.0, ["-50", "-40", "-30", "-20", "-10"]),
    ],
)
def test_ticks_are_round(low: float, high: float, labels: list[str]) -> None:
    assert [label for _, label in ticks(low, high)] == labels
