"""What a target needs, as values: keys, requests for the builder, and what the servers run.

Nothing here decides whether; `plan` does. Keys are None ("pending") until the model's digest is known.
"""

from enginesmith_contract.backend_options import options_in_key
from enginesmith_contract.backend_traits import MatrixPart, traits
from enginesmith_contract.backends import Hardware, Toolchain
from enginesmith_contract.build_request import BuildOptions, BuildRequest
from enginesmith_contract.keys import (
    EngineCandidate,
    EngineKeyInputs,
    PreparationKeyInputs,
    engine_key,
    preparation_key,
)
from enginesmith_contract.preparation import PreparationRequest
from enginesmith_contract.record import Record
from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.api.targets import TargetSpec
from enginesmith_operator.api.translate import (
    build_options,
    model_source,
    precision_policy,
    preprocess,
    profiles,
    verification_policy,
)
from enginesmith_operator.planning.signers import signers_of
from enginesmith_operator.planning.snapshot import Observed

__all__ = [
    "Deployment",
    "build_request",
    "engine_candidate",
    "preparation_key_of",
    "preparation_request",
]


class Deployment(Record):
    """How one target would serve, were all engines of its plan stored.

    What its pods ask for follows from the engines that they choose from, which a rollout may take from an earlier
    plan: see `objects.serving_pods`.

    Attributes:
        replicas: number of pods; None: an autoscaler owns it.
        serves: False for a standby while an earlier target serves: it has no replicas then.
        avoid_nodes: names of nodes that have a label of an engine's nodes and are refused.
    """

    replicas: int | None
    serves: bool
    avoid_nodes: tuple[str, ...] = ()


def preparation_key_of(spec: InferenceEngineSpec, observed: Observed) -> str | None:
    """Return the preparation's key, None while a digest that goes into it is not known."""
    policy = precision_policy(spec)
    if observed.source_digest is None or (policy.calibration is not None and observed.calibration_digest is None):
        return None
    return preparation_key(
        PreparationKeyInputs(
            source_digest=observed.source_digest,
            profiles=profiles(spec),
            precision=policy,
            calibration_digest=observed.calibration_digest if policy.calibration is not None else None,
            verification_inputs=verification_policy(spec).inputs,
            preprocess=preprocess(spec),
        )
    )


def preparation_request(
    spec: InferenceEngineSpec, toolchains: tuple[Toolchain, ...], observed: Observed
) -> PreparationRequest:
    """Return the request for the model's preparation, with advice for every TensorRT that the plan builds with."""
    versions = {one.version for one in toolchains if traits(one.backend).matrix is MatrixPart.RELEASES}
    return PreparationRequest(
        source=model_source(spec, signers_of(spec, observed)),
        preprocess=preprocess(spec),
        profiles=profiles(spec),
        precision=precision_policy(spec),
        verification=verification_policy(spec).model_copy(update={"metric_container": None}),
        tensorrt_versions=tuple(sorted(versions)),
    )


def engine_candidate(
    spec: InferenceEngineSpec, target: TargetSpec, toolchain: Toolchain, hardware: Hardware
) -> EngineCandidate:
    """Return everything that one engine depends on in addition to the prepared model.

    Of `backendOptions` only a provider's own count: it compiles the model with them, and is verified with them. The
    others say how an engine runs. `hardware` counts by platform, product and slice: the driver and the memory are
    checked, not hashed. A target that asks for a GPU has the product in its key whatever the backend, so that an engine
    names the hardware it serves on.
    """
    row = traits(toolchain.backend)
    return EngineCandidate(
        backend=toolchain.backend,
        backend_version=toolchain.version,
        cuda=toolchain.cuda,
        os=hardware.os,
        arch=hardware.arch,
        gpu_product=hardware.product,
        mig_profile=hardware.mig_profile,
        provider=(toolchain.provider or "cpu") if row.execution_providers else None,
        flags=_flags(build_options(spec)) if row.build_options else options_in_key(target.backend_options),
        plugins=tuple(plugin.sha256 for plugin in spec.build.plugins) if row.build_options else (),
        epoch=spec.build.epoch,
    )


def build_request(
    spec: InferenceEngineSpec, inputs: EngineKeyInputs, toolchain: Toolchain, hardware: Hardware, observed: Observed
) -> BuildRequest:
    """Return the request for one engine."""
    facts = observed.preparation.facts if observed.preparation else observed.model_facts
    return BuildRequest(
        engine_key=engine_key(inputs),
        key_inputs=inputs,
        store=observed.store,
        toolchain=toolchain,
        hardware=hardware,
        options=build_options(spec, model_size_bytes=facts.size_bytes if facts else None),
        verification=verification_policy(spec),
    )


def _flags(options: BuildOptions) -> dict[str, str]:
    """Name the options that differ from their default, so that a new knob changes no old key.

    The timeout changes nothing of the result, and plugins are in the key by digest.
    """
    default = BuildOptions()
    names = (
        "workspace_bytes",
        "optimization_level",
        "hardware_compatibility",
        "version_compatible",
        "weight_streaming",
        "refittable",
    )
    changed = BuildOptions.model_validate({name: getattr(options, name) for name in names}).model_dump(
        mode="json", by_alias=True, exclude_defaults=True
    )
    return {name: str(value).lower() for name, value in sorted(changed.items())} if options != default else {}
