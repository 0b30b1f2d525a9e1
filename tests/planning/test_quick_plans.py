"""The plan of a quick engine: another key of the same model, in a cluster and with TensorRT only."""

from collections.abc import Callable
from datetime import UTC, datetime

from enginesmith_contract.keys import NAME_KEY_LENGTH
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.planning.hardware import NodeFacts
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import EnginePlan
from enginesmith_operator.planning.render import render_plan
from enginesmith_operator.planning.snapshot import Observed

MakeEngine = Callable[..., InferenceEngine]
MakeObserved = Callable[..., Observed]
MakeNode = Callable[..., NodeFacts]

NOW = datetime(2026, 11, 23, tzinfo=UTC)
L4 = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
CPU = {"name": "cpu", "backend": "onnxruntime"}
QUICK = {"quickStart": True, "optimizationLevel": 4}


def _planned(engine: InferenceEngine, observed: Observed) -> EnginePlan:
    return plan(engine, observed, NOW).targets[0].engines[0]


def test_a_quick_engine_differs_in_its_level_alone(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    observed = make_observed(make_node("n1"), source_digest="ab" * 32)
    full = _planned(make_engine(targets=[L4], build=QUICK), observed)
    quick = full.quick
    assert quick is not None
    assert quick.build is not None
    assert full.build is not None
    assert (quick.build.options.optimization_level, full.build.options.optimization_level) == (0, 4)
    assert quick.candidate.flags == {"optimizationLevel": "0"}
    changes = {"candidate": full.candidate, "build": full.build, "engine_key": full.engine_key, "quick": quick}
    assert quick.model_copy(update=changes) == full
    plain = _planned(make_engine(targets=[L4], build={"optimizationLevel": 4}), observed)
    assert (plain.engine_key, plain.quick) == (full.engine_key, None), "quick start is in no key"
    slow = _planned(make_engine(targets=[L4], build={"optimizationLevel": 0}), observed)
    assert slow.engine_key == quick.engine_key


def test_the_table_names_the_quick_engine_until_the_full_one_is_stored(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    engine = make_engine(targets=[L4], build=QUICK)
    observed = make_observed(make_node("n1"), source_digest="ab" * 32)
    full = _planned(engine, observed)
    assert full.quick is not None
    quick_key = str(full.quick.engine_key)[:NAME_KEY_LENGTH]
    assert f"quick engine: {quick_key} (to be built)" in render_plan(plan(engine, observed, NOW))
    stored = observed.model_copy(update={"engine_keys": frozenset({full.engine_key})})
    assert "quick engine" not in render_plan(plan(engine, stored, NOW))


def test_a_backend_without_levels_has_no_quick_engine(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    observed = make_observed(make_node("n1"), source_digest="ab" * 32)
    made = plan(make_engine(targets=[CPU, L4], build=QUICK), observed, NOW)
    assert [one.engines[0].quick is not None for one in made.targets] == [False, True]


def test_one_machine_builds_the_full_engine_and_says_so(make_engine: MakeEngine, make_observed: MakeObserved) -> None:
    bare = NodeFacts(name="this machine", is_local=True, presence="none", arch="amd64")
    observed = make_observed(bare, local=True, source_digest="ab" * 32)
    made = plan(make_engine(targets=[CPU, L4], build=QUICK), observed, NOW)
    assert all(one.quick is None for each in made.targets for one in each.engines)
    assert [one for one in made.warnings if "quickStart" in one] == [
        "spec.build.quickStart: it has an effect only in a cluster; the full engine is built here."
    ]
