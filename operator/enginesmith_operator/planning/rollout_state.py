"""What a rollout looks at, and what it decides: values of one target."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Self

from enginesmith_contract.backends import Toolchain
from enginesmith_contract.pull_request import PullableEngine
from enginesmith_contract.record import Record
from enginesmith_operator.api.engine_status import ExcludedNode, RejectedEngine, TargetPhase
from enginesmith_operator.api.serving import WhenFull
from enginesmith_operator.planning.cloud_labels import LabelPin
from enginesmith_operator.planning.plan_records import EnginePlan

__all__ = [
    "EngineState",
    "PodTrouble",
    "RolloutDecision",
    "RolloutState",
    "RunningPods",
    "ServableEngine",
    "Strategy",
    "Trouble",
    "WantedEngine",
]


class Strategy(StrEnum):
    """How new pods replace old ones.

    `SURGE` starts a new pod beside the old ones, which takes a free GPU; `REPLACE` ends an old one first, which takes
    none.
    """

    SURGE = "surge"
    REPLACE = "replace"


class ServableEngine(Record):
    """An engine that the store has, or had when it last served.

    Attributes:
        pins: labels of the nodes that it is for.
        toolchain: with the image that loads it.
        resource: extended resource that its pods ask for; None: none.
        units: how many of it are one device; None: one.
    """

    engine: PullableEngine
    pins: tuple[LabelPin, ...] = ()
    toolchain: Toolchain
    resource: str | None = None
    units: int | None = None

    @property
    def key(self) -> str:
        """Return the engine's key."""
        return self.engine.engine_key

    @property
    def device(self) -> tuple[str, str, str]:
        """Return what the engine is for: product, slice and architecture."""
        return self.engine.product or "", self.engine.mig_profile or "", self.engine.arch


class EngineState(StrEnum):
    """How far a wanted engine is. `PENDING`: its key is not known yet; `QUEUED`: its build waits for a node."""

    PENDING = "pending"
    QUEUED = "queued"
    BUILDING = "building"
    STORED = "stored"
    FAILED = "failed"


class WantedEngine(Record):
    """One engine of the plan.

    Attributes:
        servable: its key is empty while the state is `PENDING`.
        nodes: that may serve it, by name; of a node class that has no node now, "class <name>".
        waits_since: when its build's pod was first found to fit no node; None: it was not.
        message: why it failed or waits, as a sentence.
        obstacle: one CamelCase word for what keeps its build from running; empty: nothing that a person could remove.
    """

    servable: ServableEngine
    state: EngineState
    nodes: tuple[str, ...] = ()
    waits_since: datetime | None = None
    message: str = ""
    obstacle: str = ""

    @property
    def is_held_up(self) -> bool:
        """Return whether its build does not run for another reason than a GPU that is not free yet."""
        return bool(self.obstacle) and (self.state is EngineState.BUILDING or self.servable.resource is None)

    @classmethod
    def from_plan(
        cls,
        planned: EnginePlan,
        state: EngineState,
        *,
        digest: str | None = None,
        waits_since: datetime | None = None,
        message: str = "",
        obstacle: str = "",
    ) -> Self:
        """Return an engine of a plan.

        Args:
            planned: by the plan.
            state: how far it is; without a key it is pending whatever this says.
            digest: of the stored engine.
            waits_since: when its build's pod was first found to fit no node.
            message: why it failed or waits.
            obstacle: what keeps its build from running.
        """
        hardware = planned.hardware
        engine = PullableEngine(
            engine_key=planned.engine_key or "",
            engine_digest=digest,
            product=hardware.product,
            mig_profile=hardware.mig_profile,
            arch=hardware.arch,
        )
        return cls(
            servable=ServableEngine(
                engine=engine,
                pins=planned.pins,
                toolchain=planned.toolchain,
                resource=planned.resource,
                units=planned.units if planned.units > 1 else None,
            ),
            state=state if planned.engine_key else EngineState.PENDING,
            nodes=planned.nodes,
            waits_since=waits_since,
            message=message,
            obstacle=obstacle,
        )


class Trouble(StrEnum):
    """What is wrong with a pod.

    `REFUSED_NODE`: the engine does not fit this node (another GPU than its label says, no GPU, an older driver).
    `REFUSED_ENGINE`: the engine itself is wrong (not what was built, wrong answers): it is wrong everywhere.
    `FAILED_DEVICE`: its GPU failed several times.
    `CRASHING`: a container ended several times for another reason, which may pass: a store that is away, an account
    that is wrong, too little memory.
    """

    REFUSED_NODE = "refusedNode"
    REFUSED_ENGINE = "refusedEngine"
    FAILED_DEVICE = "failedDevice"
    CRASHING = "crashing"


class PodTrouble(Record):
    """One pod of the target's newest template that does not serve.

    Attributes:
        engine_key: that it took; None: none fits the GPU that it found.
        message: the pod's own sentence.
        may_pass: whether a refusal is about the state of the node now (no driver answers, no memory is free), and not
            about its hardware.
    """

    trouble: Trouble
    node: str
    engine_key: str | None = None
    reason: str
    message: str
    may_pass: bool = False


class RunningPods(Record):
    """A target's Deployment and its pods.

    Attributes:
        engines: that its template lists; empty: its notes cannot be read.
        replicas: that its specification asks for.
        updated_ready: pods of the newest template that are Ready.
        ready: pods of any template that are Ready.
        idle_old: pods of an older template that serve nobody, and have not been told to end.
        is_settled: no pod of an older template is left, and the controller has seen the newest.
        unschedulable_since: when a pod of the newest template was first found to fit no node; None: all have one.
        troubles: of pods of the newest template.
        obstacle: one CamelCase word for what keeps a pod of the newest template from starting; empty: nothing does.
        obstacle_message: the same as a sentence.
        cordoned: nodes that would do and are cordoned, by name.
    """

    engines: tuple[ServableEngine, ...]
    replicas: int = 0
    strategy: Strategy = Strategy.SURGE
    updated_ready: int = 0
    ready: int = 0
    idle_old: int = 0
    is_settled: bool = False
    unschedulable_since: datetime | None = None
    troubles: tuple[PodTrouble, ...] = ()
    obstacle: str = ""
    obstacle_message: str = ""
    cordoned: tuple[str, ...] = ()

    @property
    def crash(self) -> PodTrouble | None:
        """Return the first pod that failed several times for a reason that may pass; None: none did."""
        may_pass = {Trouble.CRASHING, Trouble.FAILED_DEVICE}
        return next((one for one in self.troubles if one.trouble in may_pass), None)

    @property
    def takes_gpus(self) -> bool:
        """Return whether its pods ask for a GPU."""
        return any(one.resource is not None for one in self.engines)


class RolloutState(Record):
    """All that a rollout looks at.

    Attributes:
        refusal: why the target has no plan; empty: it has one.
        wanted: engines of the plan, one for each product.
        served: engines that served last, all of one toolchain; empty: none ever did.
        ruled_out: keys among them that are for hardware which the target does not ask for any more.
        running: None: there is no Deployment.
        rejected: from the status.
        excluded: from the status.
        nodes: fingerprint of every node that may serve a wanted engine, by name: changes when its GPU or driver do.
        made_of: hash of what an engine's pods are made of now, by key; under the empty key of all engines. A key that
            is missing is not known now.
        occasion: changes with the spec and whenever a person asks for another try; another one gives what failed for a
            reason that may pass another try.
        replicas: wanted; None: an autoscaler owns the number.
        serves: False for a standby while a target before it serves.
    """

    refusal: str = ""
    wanted: tuple[WantedEngine, ...] = ()
    served: tuple[ServableEngine, ...] = ()
    ruled_out: frozenset[str] = frozenset()
    running: RunningPods | None = None
    rejected: tuple[RejectedEngine, ...] = ()
    excluded: tuple[ExcludedNode, ...] = ()
    nodes: Mapping[str, str] = {}
    made_of: Mapping[str, str] = {}
    occasion: str = ""
    replicas: int | None = None
    serves: bool = True
    when_full: WhenFull = WhenFull.WAIT


class RolloutDecision(Record):
    """What the target's Deployment is to be.

    Attributes:
        run: engines that its template lists, all of one toolchain; empty: no Deployment is made, and the template of
            one that is there stays.
        replicas: None: between the bounds of the target's autoscaling: what an autoscaler set stays.
        served: engines that serve now or served last: where a failed rollout goes back to.
        must_avoid: names of nodes that refused; pods keep away from them.
        reason: one CamelCase word.
        message: one line.
        look_again_seconds: after which time alone may change the decision; None: never.
    """

    run: tuple[ServableEngine, ...] = ()
    replicas: int | None = 0
    strategy: Strategy = Strategy.SURGE
    served: tuple[ServableEngine, ...] = ()
    rejected: tuple[RejectedEngine, ...] = ()
    excluded: tuple[ExcludedNode, ...] = ()
    must_avoid: tuple[str, ...] = ()
    phase: TargetPhase
    reason: str
    message: str
    look_again_seconds: float | None = None
