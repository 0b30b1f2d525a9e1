"""Kinds of the API: names, columns, and the types from which their schemas are generated."""

from typing import Final, NamedTuple

from enginesmith_operator.api.base import ApiModel
from enginesmith_operator.api.engine_build import EngineBuild, EngineBuildSpec, EngineBuildStatus
from enginesmith_operator.api.engine_status import EngineStatus
from enginesmith_operator.api.inference_engine import InferenceEngine, InferenceEngineSpec
from enginesmith_operator.api.schema.rules import BUILD_ROOT_RULES, ENGINE_ROOT_RULES, Rule

__all__ = ["GROUP", "KINDS", "VERSION", "Column", "Kind"]

GROUP: Final = "enginesmith.io"
VERSION: Final = "v1alpha1"


class Column(NamedTuple):
    """One column of `kubectl get`; those with priority 1 are shown by `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0


class Kind(NamedTuple):
    """One kind.

    Attributes:
        root: Type of the whole object, for its summary.
        rules: CEL rules of the whole object.
    """

    name: str
    plural: str
    short_name: str
    root: type[ApiModel]
    spec: type[ApiModel]
    status: type[ApiModel]
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = ()

    @property
    def definition_name(self) -> str:
        """Return the name of the kind's CustomResourceDefinition."""
        return f"{self.plural}.{GROUP}"


_READY: Final = '.status.conditions[?(@.type=="Ready")]'
_AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")

KINDS: Final = (
    Kind(
        name="InferenceEngine",
        plural="inferenceengines",
        short_name="ie",
        root=InferenceEngine,
        spec=InferenceEngineSpec,
        status=EngineStatus,
        # Whether it serves, how many targets, on which hardware, since when, and why not.
        columns=(
            Column("Ready", f"{_READY}.status"),
            Column("Serving", ".status.serving"),
            Column("On", ".status.servingOn"),
            Column("Since", f"{_READY}.lastTransitionTime", "date"),
            Column("Reason", f"{_READY}.reason"),
            Column("Targets", ".status.targetNames", priority=1),
            Column("Message", f"{_READY}.message", priority=1),
            _AGE,
        ),
        rules=ENGINE_ROOT_RULES,
    ),
    Kind(
        name="EngineBuild",
        plural="enginebuilds",
        short_name="eb",
        root=EngineBuild,
        spec=EngineBuildSpec,
        status=EngineBuildStatus,
        columns=(
            Column("Phase", ".status.phase"),
            Column("Target", ".spec.target"),
            Column("GPU", ".spec.request.keyInputs.gpuProduct"),
            Column("Node", ".status.node"),
            Column("Progress", ".status.progress"),
            Column("Reason", f"{_READY}.reason"),
            Column("Seconds", ".status.durationSeconds", "number"),
            Column("Backend", ".spec.request.keyInputs.backend", priority=1),
            Column("Key", ".spec.request.engineKey", priority=1),
            Column("Message", f"{_READY}.message", priority=1),
            _AGE,
        ),
        rules=BUILD_ROOT_RULES,
    ),
)
