"""Replaces the work of pods on simulated nodes with the termination messages of preparations and builds.

KWOK ends a Job's pod with the text of an annotation as its termination message. An admission policy of the API server
writes that annotation as the pod is made, so that the Jobs are the operator's own, untouched. Every engine's model gets
a digest of its own, as if they differed: nothing is shared between engines, and everything is to be built.
"""

import json
import time
from typing import Any

from tests.cluster.access import Cluster

from enginesmith_contract.preparation_job import PreparationReport
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_contract.termination import BuildOutcome, TerminationMessage
from enginesmith_contract.verification import VerificationStatus

__all__ = ["FAKED", "forget_fake_pods", "have_fake_pods"]

FAKED = {"enginesmith.io/fake-pods": "true"}
"""Label of the namespaces whose Jobs do no work."""

_NAME = "enginesmith-fake-pods"
_LAST_WORD = "enginesmith.io/simulated-termination-message"
_COMPONENT = "app.kubernetes.io/component"
_DIGITS = 4
_NUMBER = "#" * _DIGITS
# The model that these pods never saw: the text direction classifier.
_FACTS = ModelFacts(
    inputs=(TensorSpec(name="x", dtype=DType.FP32, shape=(-1, 3, -1, -1), symbols=(None, None, None, None)),),
    outputs=(TensorSpec(name="save_infer_model/scale_0.tmp_1", dtype=DType.FP32, shape=(-1, 2), symbols=(None, None)),),
    opset=11,
    size_bytes=585532,
)
_DIGEST = _NUMBER + "0" * (64 - _DIGITS)


def have_fake_pods(cluster: Cluster) -> None:
    """Let the pods of Jobs in namespaces with the label `FAKED` end well on simulated nodes.

    The name of an InferenceEngine there ends with four digits, which its keys and digests begin with.
    """
    prepared = PreparationReport(
        preparation_key=_DIGEST, source_digest=_DIGEST, size_bytes=_FACTS.size_bytes, max_batch_size=16, facts=_FACTS
    )
    built = TerminationMessage(
        outcome=BuildOutcome.SUCCEEDED,
        exit_code=0,
        engine_digest=_DIGEST,
        build_seconds=1.5,
        verification=VerificationStatus.PASSED,
        difference=0.0,
        size_bytes=_FACTS.size_bytes,
        latency_seconds={"line-start": 0.003},
    )
    number = f"variables.engine.substring(size(variables.engine) - {_DIGITS})"
    preparation = _with_number(prepared.to_json().decode(), number)
    build = _with_number(built.to_json().decode(), number)
    variables = [
        {"name": "engine", "expression": "object.metadata.labels['enginesmith.io/engine']"},
        {"name": "prepares", "expression": f"object.metadata.labels['{_COMPONENT}'] == 'preparation'"},
        {"name": "word", "expression": f"variables.prepares ? {preparation} : {build}"},
    ]
    mutation = f'Object{{metadata: Object.metadata{{annotations: {{"{_LAST_WORD}": variables.word}}}}}}'
    spec: dict[str, Any] = {
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": FAKED},
            "objectSelector": {
                "matchExpressions": [{"key": _COMPONENT, "operator": "In", "values": ["preparation", "build"]}]
            },
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
            ],
        },
        "variables": variables,
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": mutation}}],
        "reinvocationPolicy": "Never",
        "failurePolicy": "Fail",
    }
    group: dict[str, object] = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": _NAME}}
    cluster.apply(
        group | {"kind": "MutatingAdmissionPolicy", "spec": spec},
        group | {"kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": _NAME}},
    )
    _wait_until_it_acts(cluster)


def forget_fake_pods(cluster: Cluster) -> None:
    """Take the policy away."""
    kinds = "mutatingadmissionpolicybindings,mutatingadmissionpolicies"
    cluster.kubectl("delete", kinds, _NAME, "--ignore-not-found")


def _with_number(text: str, number: str) -> str:
    """Return the CEL expression of a text with the engine's number in its place."""
    return f" + {number} + ".join(json.dumps(part) for part in text.split(_NUMBER))


def _wait_until_it_acts(cluster: Cluster) -> None:
    """Wait until the API server has heard of the policy."""
    namespace = f"{_NAME}-try"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": FAKED}})
    labels = {_COMPONENT: "build", "enginesmith.io/engine": "try-0000"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "try", "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    }
    give_up = time.monotonic() + 30
    try:
        while time.monotonic() < give_up:
            made = cluster.run("kubectl", "create", "--dry-run=server", "-f", "-", "-o=json", stdin=json.dumps(pod))
            if made.returncode == 0 and _LAST_WORD in (json.loads(made.stdout)["metadata"].get("annotations") or {}):
                return
            time.sleep(0.2)
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")
    raise TimeoutError(f"the policy {_NAME} does not act: {made.stdout}{made.stderr}")
