"""What the Jobs that prepare and build have in common: how often they are tried, and what is never tried again."""

from collections.abc import Iterable
from typing import Any, Final

from pydantic import Field

from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.record import Record
from enginesmith_operator.api.pod_template import ResourceRequirements

__all__ = ["DEADLINE_MARGIN_SECONDS", "JobLimits", "final_rule", "job_spec"]

DEADLINE_MARGIN_SECONDS: Final = 60
"""A Job past its deadline takes pod and log with it, so the process inside ends by itself before that."""

# What the same attempt would end with again, on any node. Everything else counts against `backoffLimit`.
_FINAL: Final = tuple(
    sorted(
        (
            ExitCode.USAGE,
            ExitCode.SPEC_INVALID,
            ExitCode.PLAN_REFUSED,
            ExitCode.MODEL_INVALID,
            ExitCode.BUILD_FAILED,
            ExitCode.BUILD_TIMED_OUT,
            ExitCode.VERIFICATION_FAILED,
            ExitCode.ENGINE_REFUSED,
            ExitCode.INFERENCE_FAILED,
        )
    )
)

JsonObject = dict[str, Any]


class JobLimits(Record):
    """How often and how long a Job is tried, and how long it stays.

    Attributes:
        backoff_limit: further attempts after a failure that may be the node's.
        ttl_seconds: how long a finished Job and its log stay.
        timeout_seconds: after this the process inside ends by itself.
        resources: of its container where the user names none.
    """

    backoff_limit: int = Field(default=2, ge=0)
    ttl_seconds: int = Field(default=3600, ge=0)
    timeout_seconds: float = 3600.0
    resources: ResourceRequirements = ResourceRequirements()


def job_spec(
    template: JsonObject, *, rules: Iterable[JsonObject], timeout_seconds: float, backoff_limit: int, ttl_seconds: int
) -> JsonObject:
    """Return a Job's specification around the template of its pod.

    Args:
        template: metadata and spec of the pod.
        rules: for failures that are final, such as `final_rule`.
        timeout_seconds: that the process enforces itself.
        backoff_limit: further attempts.
        ttl_seconds: how long the finished Job stays.
    """
    spec = template["spec"] | {"restartPolicy": "Never"}
    return {
        "backoffLimit": backoff_limit,
        "activeDeadlineSeconds": int(timeout_seconds) + DEADLINE_MARGIN_SECONDS,
        "ttlSecondsAfterFinished": ttl_seconds,
        "podFailurePolicy": {
            "rules": [
                # An eviction or a lost node does not count as an attempt.
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                *rules,
            ]
        },
        "template": template | {"spec": spec},
    }


def final_rule(container: str) -> JsonObject:
    """Return the rule for exit codes that the same attempt would end with again, on any node."""
    values = [int(code) for code in _FINAL]
    return {"action": "FailJob", "onExitCodes": {"containerName": container, "operator": "In", "values": values}}
