"""Keys of engines in pods: public ones where manifests are read, the private one in the builder alone."""

import json
from collections.abc import Callable
from typing import Any

from tests.objects.conftest import (
    DEFAULT_STORE,
    DIGEST,
    LIMITS,
    ONNXRUNTIME_IMAGE,
    as_build,
    object_set,
    plan_engine,
    pods_of,
)

from enginesmith_contract.provenance import BuildOrigin
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.objects.build_job import build_job
from enginesmith_operator.objects.deployment import deployment
from enginesmith_operator.objects.pod_rules import PodRules
from enginesmith_operator.objects.preparation_job import preparation_job
from enginesmith_operator.objects.serving_notes import ServingNotes
from enginesmith_operator.planning.preparation import preparation_job_request

MakeEngine = Callable[..., InferenceEngine]
RULES = PodRules(
    engine_keys={"builders": "PEM"},
    signing_secret="enginesmith-signing",  # noqa: S106 - the name of a Secret
    origin=BuildOrigin(operator_version="1.0", cluster="east"),
)


def variables(step: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in step["env"]}


def mounts(step: dict[str, Any]) -> list[str]:
    return [one["mountPath"] for one in step["volumeMounts"] if one["name"] == "signing-key"]


def test_the_builder_alone_mounts_the_private_key(make_engine: MakeEngine) -> None:
    engine = make_engine(targets=[{"name": "l4", "gpu": {"product": "NVIDIA-L4"}}])
    request = preparation_job_request(plan_engine(engine), "s3://b/vision")
    pods = pods_of(engine, plan_engine(engine, source_digest=DIGEST).targets[0])
    (build,) = [as_build(one) for one in object_set(engine) if one["kind"] == "EngineBuild"]
    kinds: dict[str, Any] = {"image": ONNXRUNTIME_IMAGE, "archs": ("amd64",), "store": DEFAULT_STORE, "limits": LIMITS}
    made = [
        preparation_job(engine, request, rules=RULES, **kinds)["spec"],
        build_job(build, RULES)["spec"],
        deployment(engine, pods, notes=ServingNotes(), replicas=1, rules=RULES)["spec"],
    ]
    preparing, building, serving = (one["template"]["spec"] for one in made)

    readers = (preparing["containers"][0], building["containers"][0], serving["initContainers"][0])
    assert [mounts(one) for one in readers] == [[], ["/etc/enginesmith/signing-key"], []]
    assert mounts(serving["containers"][0]) == []
    for one in readers:
        assert json.loads(variables(one)["ENGINESMITH_ENGINE_KEYS"]) == {"keys": {"builders": "PEM"}}
    assert "ENGINESMITH_ENGINE_KEYS" not in variables(serving["containers"][0])
    assert variables(readers[1])["ENGINESMITH_SIGNING_KEY"] == "/etc/enginesmith/signing-key/key.pem"
    assert [one["secret"] for one in building["volumes"] if one["name"] == "signing-key"] == [
        {"secretName": "enginesmith-signing", "defaultMode": 0o440, "items": [{"key": "key.pem", "path": "key.pem"}]}
    ]
    origin = json.loads(variables(readers[1])["ENGINESMITH_BUILD_ORIGIN"])
    assert (origin["cluster"], origin["operatorVersion"], origin["namespace"]) == ("east", "1.0", "vision")
    assert (origin["image"], origin["job"]) == (build.spec.image, build.metadata.name)
