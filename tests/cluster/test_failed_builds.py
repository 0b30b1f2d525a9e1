"""Builds that fail on a real cluster: one sentence with what to do, the last lines of the log, and no attempt in vain.

What is changed in the spec is tried at once, and so is a build whose object is deleted.
"""

import pytest
from tests.cluster.engines import Document, Tenant
from tests.cluster.operator_calls import OperatorCalls

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("operator")]

NAME = "cls"
CPU = {"name": "cpu", "backend": "onnxruntime"}
LITTLE_MEMORY = {"build": {"resources": {"limits": {"memory": "48Mi"}}}}
LITTLE_TIME = {"build": {"timeout": "10ms"}}
NARROW_GATE = {"precision": "fp16", "verification": {"limit": 1e-9}}


@pytest.fixture
def tenant(small_tenant: Tenant) -> Tenant:
    """A namespace for engines of a small model."""
    return small_tenant


def only_build(tenant: Tenant) -> Document:
    """Return the EngineBuild that there is."""
    (build,) = tenant.get("enginebuilds")["items"]
    return dict(build)


def until_failed(tenant: Tenant, reason: str) -> Document:
    """Return the status of the build that failed for this reason, once it has."""

    def failed() -> bool:
        builds = tenant.get("enginebuilds")["items"]
        return [(one.get("status") or {}).get("failure", {}).get("reason") for one in builds] == [reason]

    tenant.until(failed, f"the build fails for {reason}")
    tenant.until(lambda: tenant.condition(NAME, "Built").get("reason") == reason, f"Built says {reason}")
    return dict(only_build(tenant)["status"])


@pytest.mark.parametrize(
    ("spec", "good", "want_reason", "want_in_message"),
    [
        (LITTLE_MEMORY, {}, "OutOfMemory", "raise spec.build.resources.limits.memory"),
        (LITTLE_TIME, {}, "TimedOut", "Raise build.timeout"),
        (NARROW_GATE, {"precision": "fp16"}, "VerificationFailed", "limit"),
    ],
    ids=["memory", "time", "accuracy"],
)
def test_a_build_that_fails_says_what_to_change_and_is_made_anew_when_it_is(
    tenant: Tenant, calls: OperatorCalls, spec: Document, good: Document, want_reason: str, want_in_message: str
) -> None:
    tenant.apply(NAME, [CPU], **spec)

    status = until_failed(tenant, want_reason)
    assert status["phase"] == "Failed"
    assert want_in_message in status["failure"]["message"]
    assert want_in_message in tenant.condition(NAME, "Ready")["message"]
    calls.until_quiet()
    warnings = [one for one in tenant.events() if one["type"] == "Warning" and one["reason"] == want_reason]
    assert len(warnings) == 1
    tenant.apply(NAME, [CPU], **good)

    tenant.until_ready(NAME)


def test_a_build_that_failed_is_tried_again_once_its_object_is_deleted(tenant: Tenant, calls: OperatorCalls) -> None:
    tenant.apply(NAME, [CPU], **NARROW_GATE)
    until_failed(tenant, "VerificationFailed")
    before = only_build(tenant)["metadata"]["uid"]
    calls.until_quiet()

    tenant.kubectl("delete", "enginebuild", only_build(tenant)["metadata"]["name"])
    tenant.until(lambda: [one["metadata"]["uid"] for one in tenant.get("enginebuilds")["items"]] != [before], "it goes")

    assert until_failed(tenant, "VerificationFailed")["attempts"] == 1
    assert only_build(tenant)["metadata"]["uid"] != before


def test_what_serves_goes_on_while_its_successor_fails(tenant: Tenant, calls: OperatorCalls) -> None:
    tenant.apply(NAME, [CPU])
    tenant.until_ready(NAME)
    serving = tenant.target(NAME, "cpu")["serving"]

    tenant.apply(NAME, [CPU], **NARROW_GATE)
    tenant.until(lambda: tenant.target(NAME, "cpu").get("reason") == "BuildFailed", "the successor fails")
    calls.until_quiet()

    told = tenant.target(NAME, "cpu")
    assert (told["phase"], told["readyReplicas"], told["serving"]) == ("Serving", 1, serving)
    assert "the previous engine still serves" in told["message"]
    assert tenant.condition(NAME, "UpToDate")["status"] == "False"
    assert tenant.condition(NAME, "Ready")["status"] == "True"
