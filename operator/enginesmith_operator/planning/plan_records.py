"""What a plan says, as values: a Plan, its targets, their engines."""

from datetime import datetime
from enum import StrEnum

from enginesmith_contract.backends import Hardware, Precision, Toolchain
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.keys import EngineCandidate
from enginesmith_contract.preparation import PreparationRequest
from enginesmith_contract.record import Record
from enginesmith_operator.api.engine_status import InheritedDefault
from enginesmith_operator.planning.desired import Deployment
from enginesmith_operator.planning.hardware import LabelPin
from enginesmith_operator.planning.refusals import Refusal, RefusalCount

__all__ = ["Condition", "EnginePlan", "Plan", "TargetPlan", "TargetState"]


class TargetState(StrEnum):
    """What becomes of a target. `BUILD_ONLY`: its engine is built here, for hardware that is elsewhere."""

    PLANNED = "planned"
    BUILD_ONLY = "buildOnly"
    REFUSED = "refused"


class EnginePlan(Record):
    """One engine: one product (or CPU architecture) with one toolchain.

    Attributes:
        hardware: of the first node; keys use product, slice and platform of it only.
        candidate: the key's inputs but the model.
        why: of the toolchain, as a clause.
        nodes: that serve it, in natural order of names; node classes are "class <name>".
        build_nodes: that may build it.
        resource: extended resource that its pods ask for; None: none.
        units: how many of it are one device.
        pins: labels of the nodes that serve it; None of a CPU's nodes.
        build_pins: labels of the nodes that may build it.
        build_avoids: nodes that have such a label and may not.
        waits_for_class: only node classes match, so no node is there now.
        engine_key: None: pending.
        stored: the store has it; nothing is built.
        build: None while the key is pending.
        doubts: what the matrix cannot tell; the pod finds out.
        newer: a newer toolchain that the pin keeps out.
        quick: the same at a low optimization level, which may serve until this one is stored; None: not asked for.
    """

    hardware: Hardware
    candidate: EngineCandidate
    toolchain: Toolchain
    why: str
    nodes: tuple[str, ...]
    build_nodes: tuple[str, ...]
    resource: str | None = None
    units: int = 1
    pins: tuple[LabelPin, ...] = ()
    build_pins: tuple[LabelPin, ...] = ()
    build_avoids: tuple[str, ...] = ()
    waits_for_class: bool = False
    engine_key: str | None = None
    stored: bool = False
    build: BuildRequest | None = None
    doubts: tuple[str, ...] = ()
    newer: Toolchain | None = None
    quick: "EnginePlan | None" = None

    @property
    def variants(self) -> "tuple[EnginePlan, ...]":
        """Return the engine, and its quick one."""
        return (self,) if self.quick is None else (self, self.quick)


class TargetPlan(Record):
    """What becomes of one target.

    Attributes:
        refusals: why nodes are left out, counted; the whole answer where the state is `refused`.
        hints: sentences that help to get to a yes ("did you mean").
        deployment: None unless the state is `planned`.
    """

    name: str
    state: TargetState
    standby: bool = False
    engines: tuple[EnginePlan, ...] = ()
    deployment: Deployment | None = None
    refusals: tuple[RefusalCount, ...] = ()
    hints: tuple[str, ...] = ()


class Condition(Record):
    """One condition that a plan sets, without its times: the code that writes the status adds them.

    Attributes:
        type: of `enginesmith_operator.api.conditions`.
        reason: CamelCase, stable.
    """

    type: str
    status: bool
    reason: str
    message: str


class Plan(Record):
    """What becomes of one document.

    Attributes:
        made_at: the `now` that was given.
        preparation_key: None: pending, since the model's digest is not known.
        prepared: the preparation with this key exists.
        refusals: what forbids every target.
        suggestion: YAML to paste, where the model needs a profile.
        fallback: precisions that would be tried after this one.
        inherited: fields that the document leaves out, with the values that policies give.
        warnings: allowed, and probably not meant.
    """

    name: str
    namespace: str | None = None
    made_at: datetime
    preparation_key: str | None = None
    prepared: bool = False
    preparation: PreparationRequest
    fallback: tuple[Precision, ...] = ()
    targets: tuple[TargetPlan, ...]
    refusals: tuple[Refusal, ...] = ()
    suggestion: str = ""
    conditions: tuple[Condition, ...] = ()
    inherited: tuple[InheritedDefault, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def has_target(self) -> bool:
        """Whether at least one target is built or served."""
        return any(target.state is not TargetState.REFUSED for target in self.targets)
