"""Definitions of the API's kinds: short names, columns, and the types from which their schemas are generated."""

from typing import Final, NamedTuple

from api_schema.rules import BUILD_ROOT_RULES, ENGINE_ROOT_RULES, Rule
from enginesmith_operator.api.base import ApiModel
from enginesmith_operator.api.engine_build import EngineBuild, EngineBuildSpec, EngineBuildStatus
from enginesmith_operator.api.engine_policy import EnginePolicy, EnginePolicySpec
from enginesmith_operator.api.engine_status import EngineStatus
from enginesmith_operator.api.inference_engine import InferenceEngine, InferenceEngineSpec
from enginesmith_operator.kinds import ENGINE_BUILD, ENGINE_POLICY, INFERENCE_ENGINE, Resource

__all__ = ["DEFINITIONS", "Column", "Definition"]


class Column(NamedTuple):
    """One column of `kubectl get`; those with priority 1 are shown by `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0


class Definition(NamedTuple):
    """One CustomResourceDefinition.

    Attributes:
        resource: Row of the kind in the table of kinds.
        root: Type of the whole object, for its summary.
        status: Type of what the operator writes; None: the kind has no status.
        rules: CEL rules of the whole object.
        about: Sentences for the top of its reference page.
    """

    resource: Resource
    short_name: str
    root: type[ApiModel]
    spec: type[ApiModel]
    columns: tuple[Column, ...]
    status: type[ApiModel] | None = None
    rules: tuple[Rule, ...] = ()
    about: str = ""

    @property
    def name(self) -> str:
        """Return the name of the CustomResourceDefinition."""
        return f"{self.resource.plural}.{self.resource.group}"


_READY: Final = '.status.conditions[?(@.type=="Ready")]'
_UP_TO_DATE: Final = '.status.conditions[?(@.type=="UpToDate")]'
_AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")

DEFINITIONS: Final = (
    Definition(
        resource=INFERENCE_ENGINE,
        short_name="ie",
        root=InferenceEngine,
        spec=InferenceEngineSpec,
        status=EngineStatus,
        # Whether it answers, with what the spec asks for, how many targets, on which hardware, since when, and why not.
        columns=(
            Column("Ready", f"{_READY}.status"),
            Column("Up-To-Date", f"{_UP_TO_DATE}.status"),
            Column("Serving", ".status.serving"),
            Column("On", ".status.servingOn"),
            Column("Since", f"{_READY}.lastTransitionTime", "date"),
            Column("Reason", f"{_UP_TO_DATE}.reason"),
            Column("Targets", ".status.targetNames", priority=1),
            Column("Message", f"{_UP_TO_DATE}.message", priority=1),
            _AGE,
        ),
        rules=ENGINE_ROOT_RULES,
    ),
    Definition(
        resource=ENGINE_BUILD,
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
        about=(
            "The operator creates one for each engine that the store lacks, and deletes it with the last\n"
            "InferenceEngine that needs it. A CI pipeline may create its own. The name has at most 63 characters,\n"
            "because the Job has the same name."
        ),
    ),
    Definition(
        resource=ENGINE_POLICY,
        short_name="epol",
        root=EnginePolicy,
        spec=EnginePolicySpec,
        columns=(
            Column("Namespaces", ".spec.namespaceSelector.names"),
            Column("Products", ".spec.gpuProducts"),
            Column("Precisions", ".spec.precisions"),
            Column("Toolchains", ".spec.toolchains", priority=1),
            _AGE,
        ),
        about="[Policies](../policies.md) has examples, and says how each field is enforced.",
    ),
)
