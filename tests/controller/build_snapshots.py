"""What a pass over one EngineBuild sees, for tests: its Job, its pods and how they ended."""

import json
from datetime import UTC, datetime
from typing import Any

from enginesmith_contract.backends import Backend, Hardware, Toolchain
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_operator.api.conditions import READY, StatusCondition
from enginesmith_operator.api.engine_build import (
    BuildPlacement,
    EngineBuild,
    EngineBuildSpec,
    EngineBuildStatus,
)
from enginesmith_operator.api.metadata import ObjectMetadata
from enginesmith_operator.api.store import S3Store, StoreSpec
from enginesmith_operator.controller.engine_build.decide import BuildDecision, decide_build
from enginesmith_operator.controller.engine_build.snapshot import BuildSnapshot
from enginesmith_operator.controller.shared.conditions import find_condition
from enginesmith_operator.controller.shared.pod_facts import ContainerFacts, Ending, JobFacts, PodFacts

NOW = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC)
LATER = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)
STARTED, ENDED = "2026-11-23T12:00:00Z", "2026-11-23T12:00:20Z"
DIGEST = "ab" * 32
GPU = "nvidia.com/gpu"


def make_build(status: EngineBuildStatus | None = None) -> EngineBuild:
    """An EngineBuild for an L4."""
    inputs = EngineKeyInputs(preparation_key="cd" * 32, backend=Backend.TENSORRT, backend_version="10.13.3.9")
    request = BuildRequest(
        engine_key=engine_key(inputs),
        key_inputs=inputs,
        store="s3://engines/vision",
        toolchain=Toolchain(name="trt", backend=Backend.TENSORRT, version="10.13.3.9"),
        hardware=Hardware(product="NVIDIA-L4"),
    )
    return EngineBuild(
        metadata=ObjectMetadata(name="ocr-l4-0123", namespace="vision", uid="b1", generation=1),
        spec=EngineBuildSpec(
            target="l4",
            request=request,
            image="r/i@sha256:" + "0" * 64,
            store=StoreSpec(s3=S3Store(bucket="engines")),
            placement=BuildPlacement(gpu_resource=GPU),
        ),
        status=status or EngineBuildStatus(),
    )


def make_pod(container: ContainerFacts | None = None, **fields: Any) -> PodFacts:
    """A pod of the Job."""
    head: dict[str, Any] = {"name": "p1", "uid": "u1", "labels": {}, "created_at": STARTED, "node": "gpu-1"}
    return PodFacts(**(head | fields), containers=(container,) if container else ())


def running_builder() -> ContainerFacts:
    """A builder that runs."""
    return ContainerFacts(name="build", image="r/i@sha256:feed", running_since=STARTED)


def ended_builder(code: int, message: dict[str, Any] | None = None, reason: str = "Error") -> ContainerFacts:
    """A builder that ended, with its termination message."""
    text = json.dumps(message) if message is not None else ""
    ending = Ending(exit_code=code, reason=reason, message=text, started_at=STARTED, finished_at=ENDED)
    return ContainerFacts(name="build", image="r/i@sha256:feed", ending=ending)


def failed_message(reason: str, message: str, *, code: int = 14, retry: bool = False) -> dict[str, Any]:
    """The termination message of a failure."""
    return {"outcome": "failed", "exitCode": code, "reason": reason, "message": message, "retry": retry}


def make_job(**fields: Any) -> JobFacts:
    """The Job of the build."""
    head: dict[str, Any] = {"name": "ocr-l4-0123", "uid": "j1", "controller_uid": "b1", "started": 1}
    return JobFacts(**(head | fields))


def decide(
    job: JobFacts | None,
    *pods: PodFacts,
    status: EngineBuildStatus | None = None,
    **fields: Any,
) -> BuildDecision:
    """What becomes of the build."""
    return decide_build(BuildSnapshot(build=make_build(status), job=job, pods=pods, now=NOW, **fields))


def ready_condition(decision: BuildDecision) -> StatusCondition:
    """The Ready condition."""
    found = find_condition(decision.status.conditions, READY)
    assert found is not None
    return found
