"""The pod of a build with a user's metric: three steps in order, and the metric has nothing but samples and result."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from tests.objects.conftest import Object, as_build, object_set

from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.environment import BUILD_REQUEST, METRIC_CANDIDATE
from enginesmith_contract.errors import SpecError
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.load import load_documents
from enginesmith_operator.objects.build_job import build_job
from enginesmith_operator.objects.pods import SCRATCH_FOLDER

MakeEngine = Callable[..., InferenceEngine]
IMAGE = f"registry.example/metrics/errors@sha256:{'5f' * 32}"
METRIC = {"image": IMAGE, "args": ["--language", "zh"], "atMost": 0.02, "resources": {"limits": {"memory": "2Gi"}}}
SECRET_STORE = {"s3": {"bucket": "engines", "secretRef": {"name": "s3"}}}


def job_of(engine: InferenceEngine) -> Object:
    """The build's Job."""
    (build,) = [as_build(one) for one in object_set(engine) if one["kind"] == "EngineBuild"]
    return build_job(build)


@pytest.fixture
def job(make_engine: MakeEngine) -> Object:
    """The Job of a build on a GPU with a store that needs a Secret, and a metric."""
    return job_of(
        make_engine(
            targets=[{"name": "l4", "gpu": {"product": "NVIDIA-L4"}}],
            store=SECRET_STORE,
            verification={"metricContainer": METRIC},
            podTemplate={"env": [{"name": "TEAM", "value": "vision"}], "serviceAccountName": "builder"},
        )
    )


def test_build_metric_and_verdict_run_one_after_another(job: Object) -> None:
    pod = job["spec"]["template"]["spec"]
    build, metric = pod["initContainers"]
    (verdict,) = pod["containers"]
    assert [one["name"] for one in (build, metric, verdict)] == ["build", "metric", "verdict"]
    assert build["image"] == verdict["image"] != metric["image"] == IMAGE
    assert verdict["command"][-1] == "enginesmith_runtime.build.verdict"
    for step in (build, verdict):
        variables = {one["name"]: one.get("value") for one in step["env"]}
        request = BuildRequest.from_json(str(variables[BUILD_REQUEST]).replace("$$", "$"))
        assert request.verification.metric_container is not None
        assert request.verification.metric_container.at_most == 0.02
        mounts = {one["mountPath"]: one.get("readOnly", False) for one in step["volumeMounts"]}
        assert mounts[str(variables[METRIC_CANDIDATE])] is (step is verdict)
    assert (build["resources"]["limits"], "limits" in verdict["resources"]) == ({"nvidia.com/gpu": "1"}, False)


def test_the_metric_has_no_account_no_token_and_no_volume_but_its_own(job: Object) -> None:
    pod = job["spec"]["template"]["spec"]
    (metric,) = [one for one in pod["initContainers"] if one["name"] == "metric"]
    assert {one["name"] for one in metric["env"]} == {"HOME", "NVIDIA_VISIBLE_DEVICES"}
    mounts = {one["mountPath"]: one.get("readOnly", False) for one in metric["volumeMounts"]}
    assert mounts == {SCRATCH_FOLDER: False, "/metric/data": True, "/metric/result": False}
    shared = {one["name"] for step in pod["containers"] for one in step["volumeMounts"]}
    assert {one["name"] for one in metric["volumeMounts"]} & shared == {"metric-data", "metric-result"}
    assert metric["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert metric["resources"]["limits"] == {"memory": "2Gi"}
    assert pod["automountServiceAccountToken"] is False
    skipped = job["spec"]["template"]["metadata"]["annotations"]
    assert skipped["eks.amazonaws.com/skip-containers"] == "metric"
    assert (metric["args"], "command" in metric) == (["--language", "zh"], False)


def test_a_metric_that_fails_is_not_tried_again(job: Object) -> None:
    _, *rules = job["spec"]["podFailurePolicy"]["rules"]
    assert [one["onExitCodes"]["containerName"] for one in rules] == ["build", "metric", "verdict"]
    assert all(one["action"] == "FailJob" for one in rules)
    assert rules[1]["onExitCodes"] == {"containerName": "metric", "operator": "NotIn", "values": [0]}


def test_a_preparation_does_not_depend_on_the_metric(make_engine: MakeEngine) -> None:
    jobs = []
    for verification in ({}, {"metricContainer": METRIC}):
        made = object_set(make_engine(verification=verification, targets=[{"name": "l4"}]))
        jobs.append(next(one for one in made if one["kind"] == "Job"))
    assert jobs[0] == jobs[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "registry.example/metrics/errors:1.0"}, "with its digest"),
        ({"image": f"https://registry.example/x y@sha256:{'5f' * 32}"}, "with its digest"),
        ({"atLeast": 0.1, "atMost": 0.02}, "atLeast is larger than atMost"),
    ],
)
def test_a_metric_that_cannot_be_meant_is_refused(change: dict[str, Any], words: str) -> None:
    document = {
        "apiVersion": "enginesmith.io/v1alpha1",
        "kind": "InferenceEngine",
        "metadata": {"name": "lines"},
        "spec": {"model": {"uri": "lines.onnx"}, "verification": {"metricContainer": METRIC | change}},
    }
    with pytest.raises(SpecError, match=r"spec\.verification\.metricContainer") as refused:
        load_documents(yaml.safe_dump(document), where="test")
    assert words in str(refused.value)
