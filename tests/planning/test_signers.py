"""Whose signature a model needs."""

import pytest
from tests.planning.conftest import CPU, NOW, MakeEngine, MakeNode, MakeObserved
from tests.planning.test_policies import make_policy

from enginesmith_operator.api.engine_policy import EnginePolicy
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.signers import signers_of

KEYS = {"vision": "1", "release-1": "2", "release-2": "3"}
SIGNED = {"uri": "s3://models/a.onnx", "signature": "model.sig"}


@pytest.mark.parametrize(
    ("policies", "want"),
    [
        ((), set(KEYS)),
        ((make_policy(modelSigners=["release-*"]),), {"release-1", "release-2"}),
        ((make_policy("a", modelSigners=["release-*"]), make_policy("b", modelSigners=["*-2"])), {"release-2"}),
        ((make_policy("a", modelSigners=["vision"]), make_policy("b", modelSigners=["*-2"])), set()),
    ],
)
def test_the_keys_that_every_policy_allows_may_sign(
    make_engine: MakeEngine, make_observed: MakeObserved, policies: tuple[EnginePolicy, ...], want: set[str]
) -> None:
    engine = make_engine(model=SIGNED, targets=[CPU])
    seen = make_observed(policies=policies, model_keys=KEYS)
    found = signers_of(engine.spec, seen)
    assert set(found or {}) == want
    result = plan(engine, seen, NOW)
    assert [one.rule for one in result.refusals] == ([] if want else ["NoTrustedKey"])
    assert result.preparation.source.signers == found
    assert result.preparation.source.signature == "model.sig"


def test_no_signature_is_looked_for_where_none_is_named_and_none_is_required(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    engine = make_engine(targets=[CPU])
    seen = make_observed(make_node("a"), model_keys=KEYS)
    assert signers_of(engine.spec, seen) is None
    assert "sign" not in plan(engine, seen, NOW).preparation.to_json().decode()
    required = seen.model_copy(update={"signature_required": True})
    assert set(signers_of(engine.spec, required) or {}) == set(KEYS)


def test_a_plan_without_keys_checks_no_signature(make_engine: MakeEngine, make_observed: MakeObserved) -> None:
    assert signers_of(make_engine(model=SIGNED, targets=[CPU]).spec, make_observed()) is None
