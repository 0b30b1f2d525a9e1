"""The answers that clients take from outputs: how they are inferred, and which of them are the same."""

import numpy as np
import pytest

from enginesmith_contract.errors import SpecError
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_contract.verification import Decode, OutputAgreement, OutputGate
from enginesmith_runtime.comparison.agreement import AgreementMeter
from enginesmith_runtime.comparison.alarms import alarms_of

_RANDOM = np.random.default_rng(11)
_TOLERANCE = 0.1


def _softmax(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True), np.float32)


def _normal(*shape: int) -> np.ndarray:
    return _RANDOM.standard_normal(shape).astype(np.float32)


def _meter(
    references: list[np.ndarray], dtype: DType = DType.FP32, gate: OutputGate | None = None, name: str = "y"
) -> AgreementMeter:
    spec = TensorSpec(name=name, dtype=dtype, shape=references[0].shape)
    return AgreementMeter.of(spec, gate or OutputGate(), references, _TOLERANCE)


def _judge(
    answers: list[np.ndarray], references: list[np.ndarray], dtype: DType = DType.FP32, gate: OutputGate | None = None
) -> OutputAgreement:
    meter = _meter(references, dtype, gate)
    for number, (answer, reference) in enumerate(zip(answers, references, strict=True)):
        meter.add(str(number), answer, reference)
    return meter.result()


_ROWS = _normal(6, 8)


@pytest.mark.parametrize(
    ("reference", "dtype", "name", "decode", "axis"),
    [
        pytest.param(_softmax(_ROWS), DType.FP32, "y", Decode.ARGMAX, 1, id="a softmax"),
        pytest.param(np.log(_softmax(_ROWS)), DType.FP32, "y", Decode.ARGMAX, 1, id="a log-softmax"),
        pytest.param(_softmax(_normal(1, 9, 5)), DType.FP32, "y", Decode.ARGMAX, 2, id="a sequence"),
        pytest.param(_softmax(_normal(1, 3, 8, 9), 1), DType.FP32, "y", Decode.ARGMAX, 1, id="a map of classes"),
        pytest.param(_ROWS, DType.FP32, "y", Decode.ARGMAX, 1, id="scores without a softmax"),
        pytest.param(_normal(2, 7, 30), DType.FP32, "logits", Decode.ARGMAX, 2, id="logits by name"),
        pytest.param(1 / (1 + np.exp(-_normal(1, 1, 8, 9))), DType.FP32, "y", Decode.THRESHOLD, None, id="a map"),
        pytest.param(np.array([[3], [7]]), DType.INT64, "y", Decode.IDS, None, id="integers"),
        pytest.param(np.array([[3.0, 7.0]], np.float32), DType.FP32, "y", Decode.IDS, None, id="ids in floats"),
        pytest.param(np.array([b"a", b"b"], object), DType.BYTES, "y", Decode.IDS, None, id="texts"),
        pytest.param(_ROWS / np.linalg.norm(_ROWS, axis=1, keepdims=True), DType.FP32, "y", Decode.VALUES, None,
                     id="rows of length 1"),
        pytest.param(-np.sort(-_ROWS), DType.FP32, "logits", Decode.VALUES, None, id="scores of TopK"),
        pytest.param(-np.sort(-_softmax(_ROWS)), DType.FP32, "y", Decode.THRESHOLD, None, id="probabilities of TopK"),
        pytest.param(_ROWS, DType.FP32, "embedding", Decode.VALUES, None, id="an embedding by name"),
        pytest.param(640 * _normal(1, 50, 4), DType.FP32, "boxes", Decode.VALUES, None, id="boxes"),
        pytest.param(_normal(40, 2) * np.array([1000, 0.01], np.float32), DType.FP32, "y", Decode.VALUES, None,
                     id="two units"),
        pytest.param(np.abs(_normal(40, 3)) * np.array([1000, 30, 0.01], np.float32), DType.FP32, "y", Decode.VALUES,
                     None, id="three positive units"),
        pytest.param(_softmax(_ROWS).astype(np.float16), DType.FP16, "y", Decode.ARGMAX, 1, id="FP16"),
        pytest.param((_softmax(_ROWS).view(np.uint32) >> 16).astype(np.uint16), DType.BF16, "y", Decode.ARGMAX, 1,
                     id="BF16"),
    ],
)  # fmt: skip
def test_the_decoding_is_inferred_and_shown(
    reference: np.ndarray, dtype: DType, name: str, decode: Decode, axis: int | None
) -> None:
    meter = _meter([reference], dtype, name=name)
    meter.add("one", reference, reference)
    result = meter.result()
    assert (result.decode, result.axis) == (decode, axis)
    assert result.inferred
    assert result.agreement == 1.0
    assert result.found is None


def test_a_declared_decoding_is_not_inferred() -> None:
    scores = [_normal(2, 5) for _ in range(4)]
    declared = _judge(scores, scores, gate=OutputGate(decode=Decode.VALUES))
    assert (declared.decode, declared.inferred) == (Decode.VALUES, None)
    assert declared.decoded_by() == "values, declared"
    along = _judge(scores, scores, gate=OutputGate(decode=Decode.ARGMAX, axis=0))
    assert along.decoded_by() == "argmax along axis 0, declared"


@pytest.mark.parametrize(
    ("reference", "dtype", "gate", "where"),
    [
        (
            np.array([b"a"], object),
            DType.BYTES,
            OutputGate(decode=Decode.ARGMAX),
            "y.decode: the decoding does not fit the output: argmax needs numbers",
        ),
        (
            _ROWS,
            DType.FP32,
            OutputGate(decode=Decode.ARGMAX, axis=2),
            "the output has the axes 0 to 1. Declare another axis instead of 2",
        ),
        (np.float32(3.5).reshape(()), DType.FP32, OutputGate(decode=Decode.ARGMAX), "the output is a scalar"),
    ],
)
def test_a_declared_decoding_that_does_not_fit_is_refused(
    reference: np.ndarray, dtype: DType, gate: OutputGate, where: str
) -> None:
    with pytest.raises(SpecError) as refused:
        _meter([reference], dtype, gate)
    assert refused.value.reason == "DecodeDoesNotFit"
    assert where in str(refused.value)


def test_texts_agree_as_numpy_stores_them_and_as_engines_give_them() -> None:
    stored = [np.array([b"cat", b"dog"]), np.array([b"dog", b"cat"])]
    given = [np.array([b"cat", b"dog"], object), np.array([b"dog", b"cow"], object)]
    assert _judge(given, stored, DType.BYTES).agreement == 0.75


def test_the_same_infinity_is_the_same_measure() -> None:
    boxes = 640 * _normal(1, 50, 4)
    boxes[0, 0, 0] = np.inf
    assert _judge([boxes], [boxes]).agreement == 1.0


def test_answers_are_counted_and_not_values() -> None:
    references = [_softmax(_normal(1, 8)) for _ in range(10)]
    answers = [reference * np.float32(0.5) for reference in references]
    answers[3] = answers[3][:, ::-1].copy()
    result = _judge(answers, references)
    assert (result.answers, result.agreement) == (10, 0.9)
    assert result.worst == "sample '3' differs in 1 of 1"


def test_one_of_two_largest_values_is_the_same_answer() -> None:
    references = [_softmax(np.array([[0.0, 3.0, 2.9, row]], np.float32)) for row in (1.0, 9.0)]
    tied = np.array([[0.0, 0.4, 0.4, 0.2]], np.float32)
    assert _judge([tied, references[1]], references).agreement == 1.0


@pytest.mark.parametrize("classes", [2, 8])
def test_scores_that_are_all_equal_are_no_answer(classes: int) -> None:
    references = [_softmax(5 * np.eye(classes, dtype=np.float32)[[row % classes]]) for row in range(2 * classes)]
    flat = np.full((1, classes), 1 / classes, np.float32)
    assert _judge([flat] * len(references), references).agreement == 1 / classes


@pytest.mark.parametrize(("rare", "unproved"), [(2, "95 % of the samples have the same answer (1)"), (3, None)])
def test_an_answer_that_nearly_all_samples_share_proves_little(rare: int, unproved: str | None) -> None:
    scores = [_one_hot(number % 2 * 2 if number < rare else 1) for number in range(40)]
    assert _judge(scores, scores).unproved == unproved


def _one_hot(label: int) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[None, label] * np.float32(0.9) + np.float32(1 / 30)


def test_a_map_that_finds_nothing_does_not_agree_in_its_background() -> None:
    reference = np.zeros((1, 1, 40, 40), np.float32)
    reference[..., 10:20, 10:30] = 0.9
    result = _judge([np.zeros_like(reference)], [reference])
    assert (result.answers, result.agreement) == (200, 0.0)


def test_the_edge_of_a_map_may_move_by_one_pixel() -> None:
    reference, moved, far = (np.zeros((1, 1, 40, 40), np.float32) for _ in range(3))
    reference[..., 10:20, 10:30] = moved[..., 11:21, 9:29] = far[..., 15:25, 10:30] = 0.9
    assert _judge([moved], [reference]).agreement == 1.0
    agreement = _judge([far], [reference]).agreement
    assert agreement is not None
    assert agreement < 0.7


def test_a_threshold_can_be_declared() -> None:
    reference = np.full((1, 4, 4, 4), 0.1, np.float32)
    reference[:, :2] = 0.35
    answer = np.where(reference > 0.3, np.float32(0.25), reference)
    gate = OutputGate(decode=Decode.THRESHOLD, threshold=0.3)
    assert _judge([reference], [reference]).unproved == "all samples have the same answer (False)"
    assert _judge([answer], [reference], gate=gate).agreement == 0.0


def test_a_time_step_of_a_text_may_move_and_blanks_do_not_count() -> None:
    def text(*steps: int) -> np.ndarray:
        return _softmax(5 * np.eye(6, dtype=np.float32)[list(steps)])[None]

    reference = text(0, 0, 1, 0, 2, 0, 0, 3, 0, 0)
    assert _judge([text(0, 1, 0, 0, 2, 0, 0, 0, 3, 0)], [reference]).agreement == 1.0
    lost = _judge([text(0, 0, 1, 0, 0, 0, 0, 3, 0, 0)], [reference])
    assert lost.answers == 3
    assert lost.agreement == pytest.approx(2 / 3)


def test_classes_of_a_batch_do_not_move_to_the_next_row() -> None:
    references = [_softmax(5 * np.eye(4, dtype=np.float32))]
    assert _judge([np.roll(references[0], 1, axis=0)], references).agreement == 0.0


def test_measures_are_the_same_within_their_slice_s_scale_and_zeros_do_not_count() -> None:
    rows = np.abs(_normal(1, 64, 4)) * np.array([600, 600, 600, 0.6], np.float32) + np.array(
        [9, 9, 9, 0.01], np.float32
    )
    assert _judge([rows * np.float32(1.01)], [rows]).agreement == 1.0
    scores = rows.copy()
    scores[..., 3] = 0
    off = _judge([scores], [rows])
    assert off.decode is Decode.VALUES
    assert off.agreement is not None
    assert off.agreement < 0.9
    sparse = np.zeros((1, 64, 4), np.float32)
    sparse[0, 3] = -7.5
    assert _judge([np.zeros_like(sparse)], [sparse]).agreement == 0.0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(np.full((1, 8), np.nan, np.float32), "NaN or infinity differs in 8 of 8 values", id="NaN"),
        pytest.param(np.zeros((1, 7), np.float32), "its shape is [1, 7], the reference's [1, 8]", id="another shape"),
    ],
)
def test_faults_that_decide_by_themselves_name_the_sample(answer: np.ndarray, words: str) -> None:
    references = [_softmax(_normal(1, 8)) for _ in range(3)]
    result = _judge([references[0], answer, references[2]], references)
    assert result.found is not None
    assert result.found.startswith("sample '1': ")
    assert words in result.found


def test_whole_outputs_that_are_far_off_raise_alarms() -> None:
    references = [_softmax(3 * _normal(1, 8)) for _ in range(20)]
    near = _judge([reference + np.float32(1e-3) for reference in references], references)
    far = _judge([_softmax(3 * _normal(1, 8)) for _ in references], references)
    assert not list(alarms_of(near))
    alarms = " ".join(alarms_of(far))
    assert all(word in alarms for word in ("cosine", "mean relative error", "SQNR"))
