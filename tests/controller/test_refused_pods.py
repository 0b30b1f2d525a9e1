"""Pods that may not be created: said in the API server's words with what helps, and made once they may be."""

import pytest
from tests.controller.engine_world import EngineWorld

from enginesmith_operator.api.conditions import ConditionStatus
from enginesmith_operator.api.engine_status import TargetPhase
from enginesmith_operator.controller.inference_engine.reconcile import unexplained
from enginesmith_operator.controller.shared.explanations import newest_explanation
from enginesmith_operator.controller.shared.waiting import refused_pods
from enginesmith_operator.controller.watch.intake import JOB_NAME
from enginesmith_operator.objects.labels import TARGET

_QUOTA = "exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=1, limited: 1"


@pytest.mark.parametrize(
    ("words", "want_cause", "want_remedy"),
    [
        (
            'Error creating: pods "ocr-prep-1-x7k2p" is forbidden: pod rejected: RuntimeClass "nvidia" not found',
            'no pod can be created: RuntimeClass "nvidia" not found; ',
            "spec.podTemplate.runtimeClassName",
        ),
        (
            'Error creating: pods "ocr-prep-1-" is forbidden: no PriorityClass with name urgent was found',
            "no pod can be created: no PriorityClass with name urgent was found; ",
            "priorityClassName",
        ),
        (
            (
                'pods "ocr-l4-1-" is forbidden: error looking up service account vision/inference: serviceaccount '
                '"inference" not found'
            ),
            "no pod can be created: error looking up service account vision/inference: ",
            "spec.podTemplate.serviceAccountName",
        ),
        (
            f'pods "ocr-l4-1-" is forbidden: {_QUOTA}',
            f"no pod can be created: {_QUOTA}; ",
            "ask the administrator to raise the quota",
        ),
        (
            'pods "ocr-l4-1-" is forbidden: failed quota: q: must specify limits.cpu for: pull,server',
            "no pod can be created: failed quota: q: must specify limits.cpu for: pull,server; ",
            "spec.build.resources",
        ),
        (
            'pods "a" is forbidden: maximum memory usage per Container is 400Mi, but limit is 1Gi',
            "no pod can be created: maximum memory usage per Container is 400Mi, but limit is 1Gi; ",
            "spec.podTemplate.resources",
        ),
        (
            (
                "Error creating: pods \"a-1\" is forbidden: ValidatingAdmissionPolicy 'team' with binding 'team' "
                "denied request: pods need a team"
            ),
            "no pod can be created: ValidatingAdmissionPolicy 'team' with binding 'team' denied request: pods need",
            "change what it forbids",
        ),
        (
            (
                'Error creating: Pod "a-1" is invalid: spec.containers[0].resources.requests: Invalid value: "512Mi": '
                "must be less than or equal to memory limit of 64Mi"
            ),
            "no pod can be created: it is invalid: spec.containers[0].resources.requests: ",
            "default of a LimitRange",
        ),
    ],
)
def test_a_refused_pod_is_told_by_its_cause_without_the_name_of_the_attempt(
    words: str, want_cause: str, want_remedy: str
) -> None:
    reason, message = refused_pods(words)
    assert reason == "PodsRefused"
    assert message.startswith(want_cause)
    assert want_remedy in message


def test_a_preparation_whose_pods_are_refused_says_so_until_one_is_there() -> None:
    world = EngineWorld()
    world.step()
    (job,) = world.of_kind("Job")
    world.explained[job["metadata"]["uid"]] = f'Error creating: pods "a-1" is forbidden: {_QUOTA}'
    for kind in ("Prepared", "Ready"):
        assert world.condition(kind).reason == "PodsRefused"
        assert _QUOTA in world.condition(kind).message
    world.step()
    world.explained.clear()
    assert world.condition("Prepared").reason == "PodsRefused"
    world.job_pod(job, [{"name": "prepare", "state": {"running": {"startedAt": "2026-11-23T12:00:00Z"}}}])
    assert world.condition("Prepared").reason == "Preparing"


def test_a_refused_preparation_is_made_again_with_what_the_advice_says() -> None:
    world = EngineWorld()
    world.step()
    (job,) = world.of_kind("Job")
    world.explained[job["metadata"]["uid"]] = "Error creating: failed quota: q: must specify limits.memory"
    assert world.settle().creates == ()
    world.change_spec(build={"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}})
    decision = world.look()
    assert [one.uid for one in decision.deletes] == [job["metadata"]["uid"]]
    (made,) = decision.creates
    assert made["metadata"]["name"] == job["metadata"]["name"]
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}


def test_a_preparation_at_work_is_not_made_again_for_another_pod() -> None:
    world = EngineWorld()
    world.step()
    (job,) = world.of_kind("Job")
    world.job_pod(job, [{"name": "prepare", "state": {"running": {"startedAt": "2026-11-23T12:00:00Z"}}}])
    world.change_spec(build={"resources": {"limits": {"memory": "1Gi"}}})
    assert world.look().deletes == ()


def test_serving_pods_that_are_refused_are_told_where_none_serves_and_where_some_do() -> None:
    world = EngineWorld(targets=[{"name": "l4", "gpu": {"product": "NVIDIA-L4"}, "replicas": 2}])
    world.serve()
    assert world.condition("Ready").status is ConditionStatus.TRUE
    (deployment,) = world.of_kind("Deployment")
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
    message = f'pods "ocr-l4-1-abc" is forbidden: {_QUOTA}'
    deployment["status"] |= {"readyReplicas": 1, "conditions": [{**refused, "message": message}]}
    world.put(deployment)
    pods = world.cache.of_kind("Pod")
    gone = next(one for one in pods if one.labels.get(TARGET) == "l4" and JOB_NAME not in one.labels)
    world.cache.remove(gone.address, gone.uid)
    target = world.target("l4")
    assert (target.phase, target.reason) == (TargetPhase.SERVING, "PodsRefused")
    assert _QUOTA in target.message
    behind = world.condition("UpToDate")
    assert (behind.status, behind.reason) == (ConditionStatus.FALSE, "PodsRefused")
    assert world.condition("Ready").status is ConditionStatus.TRUE


def test_a_condition_of_a_refusal_that_has_passed_is_not_repeated() -> None:
    world = EngineWorld()
    world.serve()
    (deployment,) = world.of_kind("Deployment")
    deployment["status"]["conditions"] = [{"type": "ReplicaFailure", "status": "True", "message": _QUOTA}]
    world.put(deployment)
    assert world.condition("Ready").status is ConditionStatus.TRUE


def test_a_secret_that_a_volume_lacks_is_named_from_the_event() -> None:
    world = EngineWorld()
    world.step()
    (job,) = world.of_kind("Job")
    waiting = [{"name": "prepare", "state": {"waiting": {"reason": "ContainerCreating"}}}]
    pod = world.job_pod(job, waiting, phase="Pending")
    world.explained[pod["metadata"]["uid"]] = (
        'FailedMount: MountVolume.SetUp failed for volume "source-credentials" : secret "reader" not found'
    )
    assert world.condition("Prepared").reason == "ContainerCannotStart"
    assert 'the pod cannot start: secret "reader" not found; create it' in world.condition("Prepared").message


def test_only_what_waits_without_a_word_is_asked_about() -> None:
    world = EngineWorld()
    world.step()
    (job,) = world.of_kind("Job")
    assert _asked(world) == {job["metadata"]["uid"]}
    waiting = [{"name": "prepare", "state": {"waiting": {"reason": "ContainerCreating"}}}]
    pod = world.job_pod(job, waiting, phase="Pending")
    assert _asked(world) == {pod["metadata"]["uid"]}
    stuck = [{"name": "prepare", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]
    world.job_pod(job, stuck, phase="Pending")
    assert _asked(world) == set()
    world.end_preparation()
    assert _asked(world) == set()


def _asked(world: EngineWorld) -> set[str]:
    return {uid for uid in unexplained(world.snapshot()) if uid}


def test_of_several_events_the_newest_of_a_known_reason_counts() -> None:
    events = [
        {"reason": "FailedCreate", "message": "an old\n one", "lastTimestamp": "2026-11-23T12:00:00Z"},
        {"reason": "FailedCreate", "message": "the\n newest", "lastTimestamp": "2026-11-23T12:00:09Z"},
        {"reason": "BackoffLimitExceeded", "message": "another", "lastTimestamp": "2026-11-23T12:01:00Z"},
    ]
    assert newest_explanation(events) == "the newest"
    assert newest_explanation([]) == ""
