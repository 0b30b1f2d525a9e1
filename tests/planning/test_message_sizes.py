"""Requests and answers that no server of a document could take or send, found before anything is built."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.planning.conftest import CPU, DIGEST, NOW

from enginesmith_contract.preparation import Batching, Exercise, ExerciseStatus, Preparation
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import Plan

Make = Callable[..., Any]

_X = TensorSpec(name="x", dtype=DType.FP32, shape=(-1, 1), symbols=("N", None))


def _facts(output: TensorSpec, *more: TensorSpec, given: TensorSpec = _X) -> ModelFacts:
    return ModelFacts(inputs=(given,), outputs=(output, *more), opset=17, size_bytes=1)


def _output(*shape: int | str, dtype: DType = DType.FP32, name: str = "y") -> TensorSpec:
    sizes = tuple(-1 if isinstance(size, str) else size for size in shape)
    return TensorSpec(
        name=name, dtype=dtype, shape=sizes, symbols=tuple(size if isinstance(size, str) else None for size in shape)
    )


@pytest.fixture
def planned(make_engine: Make, make_observed: Make) -> Callable[..., Plan]:
    """Plan a document with one profile from `low` to `high` rows, for a model with these facts."""

    def make(facts: ModelFacts, low: int = 1, high: int = 1, *, limit: str = "64Mi", **observed: object) -> Plan:
        rank = len(facts.inputs[0].shape)
        rows = [[size, *facts.inputs[0].shape[1:]][:rank] for size in (low, low, high)]
        shapes = dict(zip(("min", "opt", "max"), rows, strict=True))
        engine = make_engine(targets=[CPU], profiles=[{"inputs": {"x": shapes}}], serving={"maxMessageBytes": limit})
        snapshot = make_observed(source_digest=DIGEST, model_facts=facts, local=True, **observed)
        return plan(engine, snapshot, NOW)

    return make


@pytest.mark.parametrize(
    ("facts", "want_rule", "want_bytes"),
    [
        (_facts(_output("N", 20_000_000)), "AnswerTooLarge", "80,000,000"),
        (_facts(_output(1, 20_000_000)), "AnswerTooLarge", "80,000,000"),
        (_facts(_output("N", 20_000_000, dtype=DType.BYTES)), "AnswerTooLarge", "80,000,000"),
        (_facts(_output("N", 9_000_000), _output("N", 9_000_000, name="z")), "AnswerTooLarge", "72,000,000"),
        (
            _facts(_output("N"), given=_X.model_copy(update={"shape": (-1, 20_000_000)})),
            "RequestTooLarge",
            "80,000,000",
        ),
    ],
    ids=["by its symbol", "fixed", "texts", "two outputs", "a request"],
)
def test_what_never_fits_is_refused_with_the_field_and_a_value_that_fits(
    planned: Callable[..., Plan], facts: ModelFacts, want_rule: str, want_bytes: str
) -> None:
    result = planned(facts)
    (refusal,) = result.refusals
    assert refusal.rule == want_rule
    for fragment in (want_bytes, "spec.serving.maxMessageBytes is 67,108,864", "raise it to "):
        assert fragment in refusal.sentence()
    proposed = refusal.wanted.rsplit(" ", 1)[1]
    assert planned(facts, limit=proposed).refusals == ()


@pytest.mark.parametrize(
    "facts",
    [
        _facts(_output("N", 16_000_000)),
        _facts(_output("elsewhere", 20_000_000)),
        _facts(_output("?", 20_000_000), given=_X.model_copy(update={"symbols": ("?", None)})),
    ],
    ids=["it fits", "a dimension that nothing names", "a name that means nothing"],
)
def test_what_may_fit_is_planned(planned: Callable[..., Plan], facts: ModelFacts) -> None:
    assert planned(facts).refusals == ()


def test_beyond_grpc_s_own_limit_no_field_helps(planned: Callable[..., Plan]) -> None:
    (refusal,) = planned(_facts(_output("N", 600_000_000))).refusals
    assert "less than 2Gi" in refusal.wanted
    assert "raise" not in refusal.wanted


def test_outputs_that_can_be_asked_for_one_by_one_are_a_warning_where_no_field_helps(
    planned: Callable[..., Plan],
) -> None:
    result = planned(_facts(_output("N", 600_000_000), _output("N", name="z")))
    assert result.refusals == ()
    assert any("2,400,000,004" in line and "less than 2Gi" in line for line in result.warnings)


def test_shapes_that_do_not_fit_are_a_warning_where_smaller_ones_do(planned: Callable[..., Plan]) -> None:
    result = planned(_facts(_output("N", 1_000_000)), 1, 32)
    assert result.refusals == ()
    (warning,) = [line for line in result.warnings if "maxMessageBytes" in line]
    for fragment in ("'default'", "at max", "128,000,000", "67,108,864", "raise it to 123Mi"):
        assert fragment in warning


def test_what_the_preparation_saw_counts_where_nothing_is_declared(planned: Callable[..., Plan]) -> None:
    facts = _facts(_output("elsewhere", 1_000_000))
    exercise = Exercise(
        profile="default", point="max", status=ExerciseStatus.PASSED, seconds=1.0, answer_bytes=80_000_000
    )
    preparation = Preparation(
        preparation_key="1" * 64,
        source_digest=DIGEST,
        facts=facts,
        model=(),
        profiles=(),
        exercises=(exercise,),
        references=(),
        batching=Batching(proved=False),
    )
    result = planned(facts, preparation=preparation)
    assert any("80,000,000" in line and "maxMessageBytes" in line for line in result.warnings)


@pytest.mark.parametrize("rows", [1, 32], ids=["an answer that never fits one limit", "one that fits at min"])
def test_where_documents_share_a_server_the_largest_limit_of_all_holds(planned: Callable[..., Plan], rows: int) -> None:
    facts = _facts(_output("N", 80_000_000 // (4 * rows) + 1))
    result = planned(facts, 1, rows, max_message_bytes=128 << 20)
    assert result.refusals == ()
    assert not any("maxMessageBytes" in line for line in result.warnings)


def test_where_memory_is_shared_no_message_is_too_large(planned: Callable[..., Plan]) -> None:
    result = planned(_facts(_output("N", 20_000_000)), shared_memory=True)
    assert result.refusals == ()
    assert not any("maxMessageBytes" in line for line in result.warnings)
