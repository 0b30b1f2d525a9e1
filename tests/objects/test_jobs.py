"""Jobs end for good on what is final, and pods need no right that they do not have."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.objects.conftest import Object, as_build, named, object_set

from enginesmith_contract.environment import PLUGINS_ALLOWED, PREPARATION_WAIT
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.objects.build_job import build_job
from enginesmith_operator.objects.placement import tolerations
from enginesmith_operator.objects.pod_rules import PodRules

MakeEngine = Callable[..., InferenceEngine]
COUNTED = {
    ExitCode.OK,
    ExitCode.INTERNAL,
    ExitCode.SOURCE_FAILED,
    ExitCode.BUILD_OUT_OF_MEMORY,
    ExitCode.STORE_FAILED,
    ExitCode.DEVICE_FAILED,
    ExitCode.SERVE_FAILED,
    ExitCode.CALL_FAILED,
    ExitCode.CANCELLED,
}


def _pods(objects: list[Object]) -> Iterator[Any]:
    for one in objects:
        template = one["spec"].get("template")
        if template is not None:
            yield template["spec"]


def test_a_refusal_is_final_and_a_mishap_is_counted(make_engine: MakeEngine) -> None:
    jobs = [one for one in object_set(make_engine()) if one["kind"] == "Job"]

    for job in jobs:
        ignored, final = job["spec"]["podFailurePolicy"]["rules"]
        assert ignored["action"] == "Ignore"
        assert set(final["onExitCodes"]["values"]) == set(ExitCode) - COUNTED
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert final["onExitCodes"]["containerName"] == container["name"]


def test_a_job_outlives_its_process_by_a_minute(make_engine: MakeEngine) -> None:
    objects = named(object_set(make_engine(build={"timeout": "10m"}, targets=[{"name": "l4", "replicas": 0}])))

    deadlines = {name: one["spec"]["activeDeadlineSeconds"] for (kind, name), one in objects.items() if kind == "Job"}

    assert sorted(set(deadlines.values())) == [660, 960]


def test_a_builder_that_may_wait_for_the_preparation_gets_the_time_for_it(make_engine: MakeEngine) -> None:
    objects = object_set(make_engine(build={"timeout": "10m"}, targets=[{"name": "l4"}]))
    build = as_build(next(one for one in objects if one["kind"] == "EngineBuild"))
    early = build.model_copy(update={"spec": build.spec.model_copy(update={"awaits_preparation": True})})

    def told(job: Object) -> tuple[str | None, int]:
        (container,) = job["spec"]["template"]["spec"]["containers"]
        variables = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        return variables.get(PREPARATION_WAIT), job["spec"]["activeDeadlineSeconds"]

    assert told(build_job(build)) == (None, 660)
    assert told(build_job(early)) == ("120", 780)


def test_every_pod_is_one_that_the_restricted_standard_admits(make_engine: MakeEngine) -> None:
    for pod in _pods(object_set(make_engine(targets=[{"name": "l4"}, {"name": "cpu", "backend": "onnxruntime"}]))):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "tmp" in {mount["name"] for mount in container["volumeMounts"]}


def test_a_build_in_a_queue_waits_to_be_admitted(make_engine: MakeEngine) -> None:
    queued = make_engine(build={"queueName": "builds"}, targets=[{"name": "l4", "gpu": {"product": "NVIDIA-L4"}}])

    (job,) = [
        one for one in object_set(queued) if one["metadata"]["name"].startswith("resnet50-l4") and one["kind"] == "Job"
    ]

    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "builds"


def test_a_shared_gpu_serves_and_never_builds(make_engine: MakeEngine) -> None:
    objects = object_set(make_engine(targets=[{"name": "l4", "gpu": {"product": "NVIDIA-L4"}}]))

    (build,) = [as_build(one) for one in objects if one["kind"] == "EngineBuild"]

    assert [pin.value for pin in build.spec.placement.pins] == ["NVIDIA-L4"]


@pytest.mark.parametrize(("uri", "want_claims"), [("pvc://models/a/b.onnx", ["models"]), ("s3://b/pvc://x", [])])
def test_a_model_in_a_claim_is_mounted_where_the_fetcher_looks(
    make_engine: MakeEngine, uri: str, want_claims: list[str]
) -> None:
    job = object_set(make_engine(model={"uri": uri}))[0]

    pod = job["spec"]["template"]["spec"]
    claims = [one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"] if "persistentVolumeClaim" in one]
    mounts = [one["mountPath"] for one in pod["containers"][0]["volumeMounts"]]
    assert claims == ["engines", *want_claims]
    assert [path for path in mounts if path.startswith("/models")] == [f"/models/{name}" for name in want_claims]


@pytest.mark.parametrize(("claim", "want_read_only"), [("models", True), ("engines", None)])
def test_a_model_in_the_claim_of_the_store_leaves_the_claim_writable(
    make_engine: MakeEngine, *, claim: str, want_read_only: bool | None
) -> None:
    pod = object_set(make_engine(model={"uri": f"pvc://{claim}/a/b.onnx"}))[0]["spec"]["template"]["spec"]

    (volume,) = [one for one in pod["volumes"] if one["name"] == "model-0"]
    (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "model-0"]
    assert volume["persistentVolumeClaim"].get("readOnly") is want_read_only
    assert mount["readOnly"] is True


@pytest.mark.parametrize(("archs", "want"), [(("amd64",), []), (("amd64", "arm64"), ["kubernetes.io/arch"])])
def test_a_pod_for_a_rarer_architecture_bears_its_taint(archs: tuple[str, ...], want: list[str]) -> None:
    assert [one["key"] for one in tolerations((), gpu=False, archs=archs)] == want


@pytest.mark.parametrize(
    ("plugins", "allowed", "want"),
    [
        (("a", "b"), None, None),
        (("a", "b"), (), ""),
        (("a", "b"), ("b", "c"), f"sha256:{'b' * 64}"),
        ((), ("b",), None),
    ],
)
def test_a_builder_is_told_which_of_its_plugin_libraries_the_administrator_allows(
    make_engine: MakeEngine, plugins: tuple[str, ...], allowed: tuple[str, ...] | None, want: str | None
) -> None:
    wanted = [{"uri": f"s3://plugins/{letter}.so", "sha256": letter * 64} for letter in plugins]
    target = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
    objects = object_set(make_engine(targets=[target], build={"plugins": wanted}))
    (build,) = [as_build(one) for one in objects if one["kind"] == "EngineBuild"]

    digests = None if allowed is None else tuple(letter * 64 for letter in allowed)
    job = build_job(build, PodRules(allowed_plugins=digests))

    assert _values(job, PLUGINS_ALLOWED) == ([] if want is None else [want])


def test_a_user_s_variables_come_once_and_replace_nothing_that_a_process_is_told_by(make_engine: MakeEngine) -> None:
    mine = {"ENGINESMITH_LOG_FORMAT": "text", "PROXY": "second"}
    added = [{"name": "PROXY", "value": "first"}, *({"name": name, "value": value} for name, value in mine.items())]
    objects = object_set(
        make_engine(targets=[{"name": "l4", "gpu": {"product": "NVIDIA-L4"}}], podTemplate={"env": added})
    )

    for one in objects:
        for name in mine if "template" in one["spec"] else ():
            assert set(_values(one, name)) == {mine[name]}
            assert all(names.count(name) == 1 for names in _names(one))


def test_every_process_starts_isolated_by_its_whole_path(make_engine: MakeEngine) -> None:
    objects = object_set(make_engine(targets=[{"name": "l4", "gpu": {"product": "NVIDIA-L4"}}]))

    commands = [of["command"] for one in objects if "template" in one["spec"] for of in _containers(one)]

    assert len(commands) == 4
    assert {tuple(one[:4]) for one in commands} == {("/opt/enginesmith/bin/python", "-I", "-u", "-m")}


def test_accounts_are_files_of_the_step_that_needs_them_and_no_variables(make_engine: MakeEngine) -> None:
    store = {"s3": {"bucket": "engines", "secretRef": {"name": "store-account"}}}
    model = {"uri": "s3://models/resnet50.onnx", "secretRef": {"name": "source-account"}}
    target = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
    plugins = [{"uri": "s3://plugins/a.so", "sha256": "a" * 64}]
    objects = object_set(make_engine(model=model, store=store, targets=[target], build={"plugins": plugins}))

    mounted = {
        of["name"]: {mount["name"] for mount in of["volumeMounts"]} & {"store-credentials", "source-credentials"}
        for one in objects
        if "template" in one["spec"]
        for of in _containers(one)
    }

    assert mounted == {
        "prepare": {"store-credentials", "source-credentials"},
        "build": {"store-credentials", "source-credentials"},
        "pull": {"store-credentials"},
        "server": set(),
    }
    assert all("envFrom" not in of for one in objects if "template" in one["spec"] for of in _containers(one))


def test_every_container_takes_resources_from_the_spec(make_engine: MakeEngine) -> None:
    serving = {"limits": {"cpu": "1", "memory": "1Gi", "example.com/nic": "1"}}
    building = {"limits": {"cpu": "2", "memory": "2Gi", "example.com/nic": "1"}}
    target = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
    objects = object_set(
        make_engine(targets=[target], podTemplate={"resources": serving}, build={"resources": building})
    )

    found = {
        of["name"]: of["resources"]["limits"] for one in objects if "template" in one["spec"] for of in _containers(one)
    }

    assert found == {
        "prepare": {"cpu": "2", "memory": "2Gi"},
        "build": {"cpu": "2", "memory": "2Gi", "example.com/nic": "1", "nvidia.com/gpu": "1"},
        "pull": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"},
        "server": {"cpu": "1", "memory": "1Gi", "example.com/nic": "1", "nvidia.com/gpu": "1"},
    }


def _containers(one: Object) -> list[Object]:
    pod = one["spec"]["template"]["spec"]
    return [*pod.get("initContainers", ()), *pod["containers"]]


def _values(one: Object, name: str) -> list[str]:
    return [each["value"] for of in _containers(one) for each in of["env"] if each["name"] == name]


def _names(one: Object) -> list[list[str]]:
    return [[each["name"] for each in of["env"]] for of in _containers(one)]
