"""Everything that a plan looks at, as one frozen value.

The operator fills it from its watches and the store, the command line from this machine or a file of nodes
(`enginesmith_cli.observe`). A plan reads nothing else, so two equal snapshots give one plan.
"""

from collections.abc import Mapping

from enginesmith_contract.backends import Precision, Toolchain
from enginesmith_contract.matrix.model import Matrix
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.record import Record
from enginesmith_contract.tensors import ModelFacts
from enginesmith_operator.api.engine_policy import EnginePolicy
from enginesmith_operator.api.engine_status import InheritedDefault
from enginesmith_operator.planning.hardware import LabelPin, NodeFacts, Offer, Presence
from enginesmith_operator.planning.label_mapping import Resource, load_label_mapping
from enginesmith_operator.planning.node_object import Taint
from enginesmith_operator.planning.refusals import Refusal

__all__ = ["NodeClass", "Observed", "ObservedDeployment", "RefusedPrecision"]


class NodeClass(Record):
    """A pool that may have no node now, as the operator's configuration describes it; the pod checks the truth.

    Attributes:
        selector: labels of the pool's nodes; a pod that asks for them wakes the autoscaler.
        product: in GPU Feature Discovery's spelling.
    """

    name: str
    selector: Mapping[str, str]
    product: str
    mig_profile: str | None = None
    compute_capability: str | None = None
    memory_mib: int | None = None
    driver: str | None = None
    arch: str = "amd64"
    resource: str = "nvidia.com/gpu"
    gpus: int = 1
    taints: tuple[Taint, ...] = ()

    def as_node(self) -> NodeFacts:
        """Return a node as the pool would start it."""
        known = load_label_mapping().resource(self.resource) or Resource(name=self.resource, shared=False)
        offer = Offer(
            mig_profile=self.mig_profile,
            resource=self.resource,
            allocatable=self.gpus,
            units_per_device=known.units_per_gpu,
            product=known.product,
            memory_mib=self.memory_mib,
            sharing=(f"the resource is {self.resource}",) if known.shared else (),
        )
        labels = [LabelPin(label=label, value=value) for label, value in sorted(self.selector.items())]
        pin = labels[0].model_copy(update={"also": tuple(labels[1:])}) if labels else None
        return NodeFacts(
            name=f"class {self.name}",
            presence=Presence.NVIDIA,
            arch=self.arch,
            taints=self.taints,
            labels=self.selector,
            product=self.product,
            product_from=f"node class {self.name}",
            pin=pin,
            compute_capability=self.compute_capability,
            memory_mib=self.memory_mib,
            driver=self.driver,
            offers=(offer,),
            capacity={self.resource: self.gpus},
        )


class ObservedDeployment(Record):
    """A target's Deployment that exists."""

    target: str
    ready_replicas: int = 0


class RefusedPrecision(Record):
    """A precision of the spec that is not used, since a later one of `precision.fallback` is.

    Attributes:
        reason: CamelCase, stable.
        message: one line.
    """

    precision: Precision
    reason: str
    message: str


class Observed(Record):
    """One snapshot.

    Attributes:
        source_digest: of the model and its external weights; None: not fetched yet, so keys are pending.
        calibration_digest: of the calibration data; None where none is asked for or it was not fetched.
        model_facts: of the model as fetched, where something read it.
        preparation: of this engine, whichever key it has.
        preparation_key: of the preparation that the store is known to have, where only its report was seen.
        engine_keys: keys that the store has.
        refused_precisions: of the spec, in its order; a plan is for the precision after them.
        toolchains: the catalog, or what is installed here.
        platforms: that a toolchain's image is for ("linux/amd64"), by the toolchain's name; not named: every one.
        unreadable_toolchains: entries of the catalog that are none, with what is wrong with each.
        policies: that hold for the engine's namespace.
        inherited: fields that the document leaves out and policies give; the spec that is planned has them.
        model_keys: public keys in PEM that models may be signed with, by name; None: not known.
        signature_required: whether a model without `spec.model.signature` must be signed, too.
        unreadable_policies: what is wrong with policies that cannot be read; they may forbid anything.
        pinned: the toolchain of each target that has one, by target name; kept though the catalog has it no more.
        store: URI for builders and servers.
        local: one machine, one process per model; no scheduler.
        build_for_absent_gpus: TensorRT for RTX may build for hardware that no node here has.
        shared_memory: clients can leave tensors in memory that they share with the server, and send no bytes of them.
        max_message_bytes: the largest limit of the documents that share the server; 0 where it serves one document.
    """

    nodes: tuple[NodeFacts, ...] = ()
    node_classes: tuple[NodeClass, ...] = ()
    deployments: tuple[ObservedDeployment, ...] = ()
    source_digest: str | None = None
    calibration_digest: str | None = None
    model_facts: ModelFacts | None = None
    preparation: Preparation | None = None
    preparation_key: str | None = None
    engine_keys: frozenset[str] = frozenset()
    refused_precisions: tuple[RefusedPrecision, ...] = ()
    matrix: Matrix
    toolchains: tuple[Toolchain, ...] = ()
    platforms: Mapping[str, tuple[str, ...]] = {}
    unreadable_toolchains: tuple[str, ...] = ()
    policies: tuple[EnginePolicy, ...] = ()
    inherited: tuple[InheritedDefault, ...] = ()
    model_keys: Mapping[str, str] | None = None
    signature_required: bool = False
    unreadable_policies: tuple[Refusal, ...] = ()
    pinned: Mapping[str, Toolchain] = {}
    store: str = ""
    local: bool = False
    build_for_absent_gpus: bool = False
    shared_memory: bool = False
    max_message_bytes: int = 0
