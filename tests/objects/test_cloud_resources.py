"""What a pod asks for on platforms that schedule GPUs by names of their own."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.objects.conftest import DIGEST, plan_engine, pods_of

from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.objects.deployment import deployment
from enginesmith_operator.objects.serving_notes import ServingNotes
from enginesmith_operator.planning.hardware import NodeFacts, read_node
from enginesmith_operator.planning.label_mapping import load_label_mapping
from enginesmith_operator.planning.node_object import NodeObject

MakeEngine = Callable[..., InferenceEngine]
L20 = {"nvidia.com/gpu.product": "NVIDIA-L20"}


def _node(resources: Mapping[str, str], labels: Mapping[str, str]) -> NodeFacts:
    document = {
        "metadata": {"name": "node", "labels": labels},
        "status": {"capacity": resources, "allocatable": resources},
    }
    return read_node(NodeObject.model_validate(document), load_label_mapping())


def _template(engine: InferenceEngine, node: NodeFacts) -> dict[str, Any]:
    (target,) = plan_engine(engine, nodes=(node,), node_classes=(), source_digest=DIGEST).targets
    made = deployment(engine, pods_of(engine, target), notes=ServingNotes(), replicas=1)
    template: dict[str, Any] = made["spec"]["template"]
    return template


@pytest.mark.parametrize(
    ("resources", "labels", "want"),
    [
        ({"tke.cloud.tencent.com/qgpu-core": "400"}, L20, {"tke.cloud.tencent.com/qgpu-core": "200"}),
        ({"baidu.com/l20_cgpu": "4", "baidu.com/l20_cgpu_memory": "192"}, {}, {"baidu.com/l20_cgpu": "2"}),
        ({"nvidia.com/gpu": "4"}, {"accelerator": "nvidia-l20"}, {"nvidia.com/gpu": "2"}),
    ],
)
def test_a_pod_asks_for_the_resource_that_its_cloud_schedules_by(
    make_engine: MakeEngine, resources: Mapping[str, str], labels: Mapping[str, str], want: Mapping[str, str]
) -> None:
    gpu = {"product": "NVIDIA-L20", "count": 2}
    engine = make_engine(targets=[{"name": "l20", "backend": "tensorrt-rtx", "gpu": gpu}])

    template = _template(engine, _node(resources, labels))

    (server,) = template["spec"]["containers"]
    (pull,) = template["spec"]["initContainers"]
    assert server["resources"]["limits"] == want
    assert pull["resources"]["limits"] == want
    assert "annotations" not in template["metadata"]


def test_a_pod_for_baidu_s_resource_is_pinned_to_no_label(make_engine: MakeEngine) -> None:
    engine = make_engine(targets=[{"name": "l20", "backend": "tensorrt-rtx", "gpu": {"product": "NVIDIA-L20"}}])

    template = _template(engine, _node({"baidu.com/l20_cgpu": "4"}, {}))

    required = template["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    assert [one["key"] for one in term["matchExpressions"]] == ["kubernetes.io/arch"]


def test_a_pod_on_tencent_s_serverless_nodes_names_the_model_in_an_annotation(make_engine: MakeEngine) -> None:
    label = "eks.tke.cloud.tencent.com/gpu-type"
    engine = make_engine(targets=[{"name": "t4", "backend": "tensorrt-rtx", "gpu": {"product": "Tesla-T4"}}])

    template = _template(engine, _node({"nvidia.com/gpu": "1"}, {label: "T4"}))

    assert template["metadata"]["annotations"] == {label: "T4"}
