"""A Deployment restarts its servers for a reason, and for nothing else."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.objects.conftest import DIGEST, ONNXRUNTIME_IMAGE, plan_engine, pods_of

from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.objects import deployment as module
from enginesmith_operator.objects.deployment import keep_template
from enginesmith_operator.objects.labels import INPUTS, TEMPLATE
from enginesmith_operator.objects.pod_rules import PodRules
from enginesmith_operator.objects.serving_notes import ServingNotes, read_notes
from enginesmith_operator.objects.serving_pods import ServingPods
from enginesmith_operator.planning.rollout_state import Strategy

MakeEngine = Callable[..., InferenceEngine]
L4 = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
ADA = {"name": "ada", "gpu": {"computeCapability": "8.9"}}
ON_L4 = {"name": "ort", "backend": "onnxruntime", "gpu": {"product": "NVIDIA-L4"}}
ON_ADA = {"name": "ort", "backend": "onnxruntime", "gpu": {"computeCapability": "8.9"}}


def deployment(engine: InferenceEngine, pods: ServingPods, **fields: Any) -> dict[str, Any]:
    """The object, with the notes that belong to its pods."""
    return module.deployment(engine, pods, notes=ServingNotes(avoid_nodes=pods.avoid_nodes), **fields)


def _pods(engine: InferenceEngine) -> ServingPods:
    return pods_of(engine, plan_engine(engine, source_digest=DIGEST).targets[0])


def _as_stored(made: dict[str, Any]) -> dict[str, Any]:
    """The object as an API server returns it: with defaults of its own."""
    stored = copy.deepcopy(made)
    stored["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
    return stored


def _of_an_older_release(made: dict[str, Any]) -> dict[str, Any]:
    stored = _as_stored(made)
    stored["metadata"]["annotations"][TEMPLATE] = "of an older release"
    stored["spec"]["template"]["spec"]["containers"][0]["env"].pop()
    return stored


@pytest.mark.parametrize("replicas", [None, 0, 3])
def test_an_autoscaler_s_replicas_are_not_touched(make_engine: MakeEngine, replicas: int | None) -> None:
    engine = make_engine(targets=[L4])

    made = deployment(engine, _pods(engine), replicas=replicas)

    assert made["spec"].get("replicas") == replicas


@pytest.mark.parametrize(("strategy", "want"), [(Strategy.SURGE, (1, 0)), (Strategy.REPLACE, (0, 1))])
def test_a_strategy_changes_no_pod(make_engine: MakeEngine, strategy: Strategy, want: tuple[int, int]) -> None:
    engine = make_engine(targets=[L4])
    pods = _pods(engine)

    made = deployment(engine, pods, replicas=1, strategy=strategy)

    update = made["spec"]["strategy"]["rollingUpdate"]
    assert (update["maxSurge"], update["maxUnavailable"]) == want
    assert made["spec"]["template"] == deployment(engine, pods, replicas=1)["spec"]["template"]


@pytest.mark.parametrize(("target", "want_gpu"), [(L4, True), (ADA, True), (ON_L4, False), (ON_ADA, True)])
def test_the_init_step_has_the_gpu_where_it_has_to_look_at_it(
    make_engine: MakeEngine, target: dict[str, object], *, want_gpu: bool
) -> None:
    engine = make_engine(targets=[target])

    pod = deployment(engine, _pods(engine), replicas=1)["spec"]["template"]["spec"]

    assert ("nvidia.com/gpu" in pod["initContainers"][0]["resources"].get("limits", {})) is want_gpu
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_a_pod_goes_to_nodes_of_the_products_whose_engine_is_there(make_engine: MakeEngine) -> None:
    engine = make_engine(targets=[ADA])
    target = plan_engine(engine, source_digest=DIGEST).targets[0]
    only_l4 = target.model_copy(update={"engines": target.engines[:1]})

    terms = [
        deployment(engine, pods_of(engine, one), replicas=1)["spec"]["template"]["spec"]["affinity"]["nodeAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]["nodeSelectorTerms"][0]["matchExpressions"][0]
        for one in (target, only_l4)
    ]

    assert terms[0]["values"] == ["NVIDIA-L4", "NVIDIA-L4-SHARED", "NVIDIA-L40S"]
    assert terms[1]["values"] == ["NVIDIA-L4", "NVIDIA-L4-SHARED"]


def test_another_release_s_template_stays_while_its_inputs_are_the_same(make_engine: MakeEngine) -> None:
    engine = make_engine(targets=[L4])
    made = deployment(engine, _pods(engine), replicas=2)
    live = _of_an_older_release(made)

    kept = keep_template(made, live)

    assert kept["spec"]["template"] == live["spec"]["template"]
    assert kept["metadata"]["annotations"][TEMPLATE] == "of an older release"
    assert kept["spec"]["replicas"] == 2


def test_pods_of_two_templates_differ_by_a_label_and_those_of_equal_ones_do_not(make_engine: MakeEngine) -> None:
    engine = make_engine(targets=[L4])
    pods = _pods(engine)

    marks = [
        deployment(engine, one, replicas=1)["spec"]["template"]["metadata"]["labels"][TEMPLATE]
        for one in (pods, pods, pods.model_copy(update={"gpus": 2}))
    ]

    assert marks[0] == marks[1] != marks[2]


def test_servers_send_traces_where_the_administrator_says(make_engine: MakeEngine) -> None:
    engine = make_engine(targets=[L4])
    target = plan_engine(engine, source_digest=DIGEST).targets[0]
    collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_RESOURCE_ATTRIBUTES": "team=$a"}
    traced = pods_of(engine, target, tracing=collector)

    pod = deployment(engine, traced, replicas=1)["spec"]["template"]["spec"]
    variables = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}

    assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4317"
    assert variables["OTEL_SERVICE_NAME"] == engine.metadata.name
    attributes = f"team=$$a,service.namespace={engine.metadata.namespace},enginesmith.target=l4"
    assert variables["OTEL_RESOURCE_ATTRIBUTES"] == attributes
    assert variables["ENGINESMITH_OBJECT"] == f"{engine.metadata.namespace}/{engine.metadata.name}"
    assert "OTEL_SERVICE_NAME" not in str(pod["initContainers"])
    assert traced.inputs_hash() != pods_of(engine, target).inputs_hash()


def test_a_template_changed_by_hand_is_repaired(make_engine: MakeEngine) -> None:
    engine = make_engine(targets=[L4])
    made = deployment(engine, _pods(engine), replicas=2)
    live = _as_stored(made)
    live["spec"]["template"]["spec"]["containers"][0]["image"] = "something:else"

    assert keep_template(made, live)["spec"]["template"] == made["spec"]["template"]


@pytest.mark.parametrize(
    "change",
    [
        {"image": ONNXRUNTIME_IMAGE},
        {"gpus": 2},
        {"pins": ()},
    ],
)
def test_another_input_is_a_reason_for_another_template(make_engine: MakeEngine, change: dict[str, object]) -> None:
    engine = make_engine(targets=[L4])
    pods = _pods(engine)
    live = _of_an_older_release(deployment(engine, pods, replicas=2))
    made = deployment(engine, pods.model_copy(update=change), replicas=2)

    assert keep_template(made, live) == made


def test_nodes_that_come_and_digests_learnt_later_restart_nothing_until_a_pod_was_refused(
    make_engine: MakeEngine,
) -> None:
    engine = make_engine(targets=[L4])
    pods = _pods(engine)
    nameless = tuple(one.model_copy(update={"engine_digest": None}) for one in pods.pull.engines)
    older = pods.model_copy(update={"pull": pods.pull.model_copy(update={"engines": nameless})})
    live = _as_stored(deployment(engine, older, replicas=2))
    made = deployment(engine, pods.model_copy(update={"avoid_nodes": ("old-driver",)}), replicas=2)

    assert made["metadata"]["annotations"][INPUTS] == live["metadata"]["annotations"][INPUTS]
    kept = keep_template(made, live)
    assert kept["spec"]["template"] == live["spec"]["template"]
    assert read_notes(kept).avoid_nodes == ()
    assert keep_template(made, live, must_avoid=("old-driver",)) == made


@pytest.mark.parametrize("noted", ["", "[]", "{}", "null", '{"avoidNodes": 3}'])
def test_a_garbled_note_is_no_obstacle(make_engine: MakeEngine, noted: str) -> None:
    engine = make_engine(targets=[L4])
    made = deployment(engine, _pods(engine), replicas=2)
    live = _of_an_older_release(made)
    live["metadata"]["annotations"]["enginesmith.io/notes"] = noted

    assert keep_template(made, live, must_avoid=("a",)) == made
    assert keep_template(made, {}) == made


def test_a_request_is_not_expanded_by_kubernetes(make_engine: MakeEngine) -> None:
    engine = make_engine(targets=[L4], store={"s3": {"bucket": "b", "prefix": "$(HOME)"}})

    pod = deployment(engine, _pods(engine), replicas=1)["spec"]["template"]["spec"]

    (request,) = [one["value"] for one in pod["initContainers"][0]["env"] if one["name"].endswith("PULL_REQUEST")]
    assert "$$(HOME)" in request
    assert json.loads(request.replace("$$", "$"))["store"] == "s3://b/$(HOME)/vision"


@pytest.mark.parametrize(("target", "want"), [(L4, [f"sha256:{'a' * 64}"]), (ON_L4, [])])
def test_a_pod_of_tensorrt_is_told_which_plugin_libraries_are_allowed(
    make_engine: MakeEngine, target: dict[str, Any], want: list[str]
) -> None:
    engine = make_engine(targets=[target])

    made = deployment(engine, _pods(engine), replicas=1, rules=PodRules(allowed_plugins=("a" * 64,)))

    (init,) = made["spec"]["template"]["spec"]["initContainers"]
    assert [one["value"] for one in init["env"] if one["name"] == "ENGINESMITH_PLUGINS_ALLOWED"] == want


def test_another_list_of_plugin_libraries_restarts_nothing(make_engine: MakeEngine) -> None:
    engine = make_engine(targets=[L4])
    live = _as_stored(deployment(engine, _pods(engine), replicas=2))
    made = deployment(engine, _pods(engine), replicas=2, rules=PodRules(allowed_plugins=("a" * 64,)))

    assert made["spec"]["template"] != live["spec"]["template"]
    assert keep_template(made, live)["spec"]["template"] == live["spec"]["template"]
