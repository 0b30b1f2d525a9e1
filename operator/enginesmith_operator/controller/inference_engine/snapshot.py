"""Everything that a pass over one InferenceEngine looks at, as one value.

`gather` makes it; the steps that decide read nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from enginesmith_contract.waiting_builds import PREPARATION_LATE
from enginesmith_operator.api.engine_build import BuildFailure, BuildPhase
from enginesmith_operator.api.engine_status import EngineStatus
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.store import StoreSpec
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.shared.cache import Owner
from enginesmith_operator.controller.shared.pod_facts import JobFacts, PodFacts
from enginesmith_operator.objects.jobs import JobLimits
from enginesmith_operator.objects.pod_rules import PodRules
from enginesmith_operator.objects.serving_notes import ServingNotes
from enginesmith_operator.planning.catalog import Catalog
from enginesmith_operator.planning.gpu_limit import GpuLimit
from enginesmith_operator.planning.refusals import Refusal
from enginesmith_operator.planning.snapshot import Observed

__all__ = ["ChosenStore", "EngineSnapshot", "KnownBuild", "KnownDeployment"]

_PREPARATION_MISSING: Final = "PreparationMissing"


@dataclass(frozen=True, kw_only=True)
class ChosenStore:
    """Where this engine's preparation and engines are kept.

    Attributes:
        uri: that pods receive.
        access_modes: of the claim; None: it is not a claim.
    """

    spec: StoreSpec
    uri: str
    access_modes: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class KnownBuild:
    """An EngineBuild of the namespace that is for this engine, or for one of its keys.

    Attributes:
        is_owned: whether this engine is among its owners.
        version: the resourceVersion with which its owners were read.
        reason: of its Ready condition.
        message: of its Ready condition.
        waits_since: when its pod was found to fit no node; empty: it was not.
        spec: as the server has it, with its defaults.
        latency_seconds: of one inference at the opt shapes, by profile; empty where the build has not succeeded.
    """

    name: str
    uid: str
    key: str
    target: str
    phase: BuildPhase
    owners: tuple[Owner, ...]
    owner_documents: tuple[Json, ...]
    is_owned: bool
    version: str
    spec: Json
    digest: str | None = None
    failure: BuildFailure | None = None
    node: str = ""
    reason: str = ""
    message: str = ""
    waits_since: str = ""
    finished_at: str = ""
    latency_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def awaits_preparation(self) -> bool:
        """Return whether it was created while the model was still being prepared."""
        return bool(self.spec.get("awaitsPreparation"))

    @property
    def came_too_early(self) -> bool:
        """Return whether it ended because the preparation took longer than its builder waits.

        The builder of an earlier release does not wait at all.
        """
        reasons = {PREPARATION_LATE, *({_PREPARATION_MISSING} if self.awaits_preparation else ())}
        return self.failure is not None and self.failure.reason in reasons


@dataclass(frozen=True, kw_only=True)
class KnownDeployment:
    """The Deployment of one target.

    Attributes:
        notes: what it remembers: the engines of its template, and those that served.
        replicas: that it asks for.
        template_labels: of its pods' template.
        is_observed: whether its controller has seen the newest spec.
        refused: why a pod of it cannot be created, in the API server's words; empty: nothing of that kind is known.
    """

    target: str
    uid: str
    document: Json
    notes: ServingNotes
    replicas: int
    ready_replicas: int
    template_labels: Mapping[str, str]
    is_observed: bool
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class EngineSnapshot:
    """One InferenceEngine and all that was seen around it.

    Attributes:
        document: the object as it was seen.
        status: as it was; empty where it could not be read.
        store: or why nothing may be prepared or built.
        observed: nodes, catalog and matrix; without what the status remembers of the model.
        preparation_jobs: by name.
        preparation_pods: of all those Jobs, by the Job's name.
        builds: by engine key.
        deployments: by target.
        pods: that serve, by target.
        objects: every child that can be applied, by kind and name.
        limits_of_preparation: from the operator's configuration.
        limits_of_build: from the operator's configuration.
        gpus: how many the namespace may have, and who has them; None: no policy limits them.
        tracing: variables by which servers send traces; None: they send none.
        rules: for pods, from the operator's configuration.
    """

    document: Json
    engine: InferenceEngine
    status: EngineStatus
    store: ChosenStore | Refusal
    catalog: Catalog
    observed: Observed
    preparation_jobs: Mapping[str, JobFacts]
    preparation_pods: Mapping[str, tuple[PodFacts, ...]]
    builds: Mapping[str, KnownBuild]
    deployments: Mapping[str, KnownDeployment]
    pods: Mapping[str, tuple[PodFacts, ...]]
    objects: Mapping[tuple[str, str], Json]
    limits_of_preparation: JobLimits
    limits_of_build: JobLimits
    tracing: Mapping[str, str] | None
    rules: PodRules
    now: datetime
    gpus: GpuLimit | None = None
