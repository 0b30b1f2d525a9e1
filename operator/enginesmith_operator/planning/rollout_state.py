"""Input and output of a rollout's decision, for one target."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final, Self

from enginesmith_contract.backends import Toolchain
from enginesmith_contract.pull_request import PullableEngine
from enginesmith_contract.record import Record
from enginesmith_operator.api.engine_status import ExcludedNode, RejectedEngine, TargetPhase
from enginesmith_operator.api.serving import WhenFull
from enginesmith_operator.planning.cloud_labels import LabelPin
from enginesmith_operator.planning.plan_records import EnginePlan

__all__ = [
    "PATIENCE_SECONDS",
    "EngineState",
    "Obstacle",
    "PodTrouble",
    "RolloutDecision",
    "RolloutState",
    "RunningPods",
    "ServableEngine",
    "Strategy",
    "Trouble",
    "WantedEngine",
    "is_full",
    "seconds_waited",
]

PATIENCE_SECONDS: Final = 15.0
"""How long a pod may fit no node before the GPUs count as full: another pod may just be ending."""


def is_full(since: datetime | None, now: datetime) -> bool:
    """Whether a pod has fitted no node for so long that the GPUs count as full."""
    return (seconds_waited(since, now) or 0.0) >= PATIENCE_SECONDS


def seconds_waited(since: datetime | None, now: datetime) -> float | None:
    """Return how long a pod has fitted no node; None: it fits one."""
    return None if since is None else max((now - since).total_seconds(), 0.0)


class Strategy(StrEnum):
    """How new pods replace old ones.

    `SURGE` starts a new pod first, which takes a free GPU; `REPLACE` stops an old pod first, which takes none.
    """

    SURGE = "surge"
    REPLACE = "replace"


class ServableEngine(Record):
    """An engine that the store has, or had when it last served.

    Attributes:
        pins: labels of the nodes that the engine is for.
        toolchain: toolchain with the image that loads the engine.
        resource: extended resource that its pods ask for; None: none.
        units: number of resource units that make one device; None: one.
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
    """Progress of a wanted engine. `PENDING`: its key is not known yet; `QUEUED`: its build waits for a node."""

    PENDING = "pending"
    QUEUED = "queued"
    BUILDING = "building"
    STORED = "stored"
    FAILED = "failed"


class WantedEngine(Record):
    """One engine of the plan.

    Attributes:
        servable: the engine; its key is empty while the state is `PENDING`.
        nodes: names of the nodes that may serve it; "class <name>" for a node class that has no node now.
        waits_since: time when its build's pod was first found to fit no node; None: it fits one.
        message: sentence that says why the build failed or waits.
        obstacle: CamelCase word for what keeps its build from running; empty: nothing that a person could remove.
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

    def is_full(self, now: datetime) -> bool:
        """Whether its build has found no free GPU for a while."""
        return self.state is EngineState.QUEUED and is_full(self.waits_since, now)

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
            planned: engine of the plan.
            state: progress of the engine; ignored without a key, since the engine is pending then.
            digest: digest of the stored engine.
            waits_since: time when its build's pod was first found to fit no node.
            message: sentence that says why the build failed or waits.
            obstacle: CamelCase word for what keeps its build from running.
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
    `REFUSED_ENGINE`: the engine itself is wrong (not what was built, wrong answers), on every node.
    `FAILED_DEVICE`: its GPU failed several times.
    `CRASHING`: a container ended several times for another, maybe temporary reason: an unreachable store, wrong
    credentials, too little memory.
    """

    REFUSED_NODE = "refusedNode"
    REFUSED_ENGINE = "refusedEngine"
    FAILED_DEVICE = "failedDevice"
    CRASHING = "crashing"


class PodTrouble(Record):
    """One pod of the target's newest template that does not serve.

    Attributes:
        engine_key: key of the engine that it loaded; None: no engine fits the GPU that it found.
        message: sentence from the pod's termination message.
        may_pass: whether a refusal is about the node's state now (no driver answers, no memory is free) and not about
            its hardware.
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
        engines: engines that its template lists; empty: its notes cannot be read.
        replicas: number of replicas in its specification.
        updated_ready: number of Ready pods of the newest template.
        ready: number of Ready pods of any template.
        idle_old: number of pods of an older template that are neither Ready nor terminating.
        is_settled: whether no pod of an older template is left, and the Deployment controller has seen the newest.
        unschedulable_since: time when a pod of the newest template was first found to fit no node; None: all fit one.
        troubles: troubles of the newest template's pods.
        obstacle: CamelCase word for what keeps a pod of the newest template from starting; empty: nothing does.
        obstacle_message: the same as a sentence.
        cordoned: names of the matching nodes that are cordoned.
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
        """Return the first pod that failed several times for a maybe temporary reason; None: no pod did."""
        may_pass = {Trouble.CRASHING, Trouble.FAILED_DEVICE}
        return next((trouble for trouble in self.troubles if trouble.trouble in may_pass), None)

    @property
    def takes_gpus(self) -> bool:
        """Return whether its pods ask for a GPU."""
        return any(engine.resource is not None for engine in self.engines)


class Obstacle(Record):
    """A reason that a person can remove.

    Attributes:
        reason: one CamelCase word.
        message: one line.
    """

    reason: str
    message: str


class RolloutState(Record):
    """All that a rollout looks at.

    Attributes:
        refusal: sentence that says why the target has no plan; empty: it has one.
        model_obstacle: what keeps the model from being prepared; None: it is prepared, or its preparation runs.
        wanted: engines of the plan, one for each product.
        quick: quick engines of the plan, each for the device of a wanted one.
        last_good: engines that served last, all of one toolchain; empty: none ever served.
        ruled_out: keys among them for hardware that the target does not ask for any more.
        running: Deployment and its pods; None: there is no Deployment.
        drain: sentence about a drain that no other node has room for; empty: there is none.
        rejected: rejected engines of the previous status.
        excluded: excluded nodes of the previous status.
        nodes: fingerprint of every node that may serve a wanted engine, by name: changes with its GPU and driver.
        made_of: hash of the inputs of an engine's pods, by key; of all engines under the empty key. A missing key is
            not known now.
        occasion: text that changes with the spec and with every request for another try; a new one gives engines that
            failed for a temporary reason another try.
        replicas: wanted number; None: an autoscaler owns it.
        serves: False for a standby while an earlier target serves.
    """

    refusal: str = ""
    model_obstacle: Obstacle | None = None
    wanted: tuple[WantedEngine, ...] = ()
    quick: tuple[WantedEngine, ...] = ()
    last_good: tuple[ServableEngine, ...] = ()
    ruled_out: frozenset[str] = frozenset()
    running: RunningPods | None = None
    drain: str = ""
    rejected: tuple[RejectedEngine, ...] = ()
    excluded: tuple[ExcludedNode, ...] = ()
    nodes: Mapping[str, str] = {}
    made_of: Mapping[str, str] = {}
    occasion: str = ""
    replicas: int | None = None
    serves: bool = True
    when_full: WhenFull = WhenFull.WAIT

    @property
    def tried(self) -> tuple[WantedEngine, ...]:
        """Return the engines that pods may try: the wanted ones, and quick ones while the full ones are not stored."""
        missing = {wanted.servable.device for wanted in self.wanted if wanted.state is not EngineState.STORED}
        return (*self.wanted, *(quick for quick in self.quick if quick.servable.device in missing))


class RolloutDecision(Record):
    """Wanted state of the target's Deployment, with the target's status.

    Attributes:
        template_engines: engines that its template lists, all of one toolchain; empty: no Deployment is created, and
            the template of an existing one stays.
        replicas: number of replicas; None: an autoscaler's number stays, within the bounds of the target's autoscaling.
        last_good: engines that serve now or served last: where a failed rollout goes back to.
        builds: keys of the engines that may be built now, where the store lacks them.
        must_avoid: names of nodes that refused an engine; pods keep away from them.
        reason: one CamelCase word.
        message: one line.
        look_again_seconds: seconds after which time alone may change the decision; None: never.
    """

    template_engines: tuple[ServableEngine, ...] = ()
    replicas: int | None = 0
    strategy: Strategy = Strategy.SURGE
    last_good: tuple[ServableEngine, ...] = ()
    builds: tuple[str, ...] = ()
    rejected: tuple[RejectedEngine, ...] = ()
    excluded: tuple[ExcludedNode, ...] = ()
    must_avoid: tuple[str, ...] = ()
    phase: TargetPhase
    reason: str
    message: str
    look_again_seconds: float | None = None
