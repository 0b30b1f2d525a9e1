"""The steps of a build whose engine is judged by a user's metric: build, metric and verdict, one after another.

The first two are init containers, so the kubelet itself keeps the order, and the metric's image needs no wrapper. The
metric has none of the variables, Secrets and volumes of the other two but the samples, which it reads, and its result.
"""

from typing import Final

from enginesmith_contract import environment
from enginesmith_contract.metric_container import DATA_FOLDER, RESULT_FOLDER, MetricContainer
from enginesmith_operator.api.pod_template import ResourceRequirements
from enginesmith_operator.objects.jobs import final_rule
from enginesmith_operator.objects.pods import SCRATCH_FOLDER, SECURITY, JsonObject, resources_of

__all__ = [
    "METRIC_ANNOTATIONS",
    "METRIC_CONTAINER",
    "METRIC_VOLUMES",
    "VERDICT_CONTAINER",
    "build_mounts",
    "candidate_variable",
    "metric_container",
    "metric_rules",
    "verdict_mounts",
]

METRIC_CONTAINER: Final = "metric"
VERDICT_CONTAINER: Final = "verdict"
METRIC_ANNOTATIONS: Final = {
    # Webhooks of clouds give each container of a pod its account, but for those that are named here.
    "eks.amazonaws.com/skip-containers": METRIC_CONTAINER,
    "azure.workload.identity/skip-containers": METRIC_CONTAINER,
}
METRIC_VOLUMES: Final[tuple[JsonObject, ...]] = tuple(
    {"name": name, "emptyDir": {}} for name in ("metric-data", "metric-result", "metric-candidate", "metric-tmp")
)
_CANDIDATE_FOLDER: Final = "/metric/candidate"
_REQUESTS: Final = {"cpu": "250m", "memory": "512Mi"}


def candidate_variable() -> JsonObject:
    """Return the variable that says where an engine waits for its verdict."""
    return {"name": environment.METRIC_CANDIDATE, "value": _CANDIDATE_FOLDER}


def build_mounts() -> list[JsonObject]:
    """Return the folders that the build writes."""
    return [_mount("metric-data", DATA_FOLDER), _mount("metric-candidate", _CANDIDATE_FOLDER)]


def verdict_mounts() -> list[JsonObject]:
    """Return the folders that the verdict is read from."""
    return [
        _mount("metric-data", DATA_FOLDER, read_only=True),
        _mount("metric-candidate", _CANDIDATE_FOLDER, read_only=True),
        _mount("metric-result", RESULT_FOLDER, read_only=True),
    ]


def metric_container(asked: MetricContainer, resources: ResourceRequirements) -> JsonObject:
    """Return the user's container."""
    given = {"command": list(asked.command), "args": list(asked.args)}
    return {
        "name": METRIC_CONTAINER,
        "image": asked.image,
        "imagePullPolicy": "IfNotPresent",
        **{name: value for name, value in given.items() if value},
        "env": [
            {"name": "HOME", "value": SCRATCH_FOLDER},
            # CUDA's base images ask the NVIDIA runtime for all GPUs of the node.
            {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"},
        ],
        "volumeMounts": [
            _mount("metric-tmp", SCRATCH_FOLDER),
            _mount("metric-data", DATA_FOLDER, read_only=True),
            _mount("metric-result", RESULT_FOLDER),
        ],
        "resources": resources_of(resources, _REQUESTS),
        "securityContext": SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def metric_rules() -> list[JsonObject]:
    """Return the rules for the steps after the build. A metric that fails refuses the engine: no attempt follows."""
    failed = {"containerName": METRIC_CONTAINER, "operator": "NotIn", "values": [0]}
    return [{"action": "FailJob", "onExitCodes": failed}, final_rule(VERDICT_CONTAINER)]


def _mount(name: str, path: str, *, read_only: bool = False) -> JsonObject:
    return {"name": name, "mountPath": path} | ({"readOnly": True} if read_only else {})
