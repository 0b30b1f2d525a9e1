"""What can be said of a document before any node is looked at: policies, datatypes and shape profiles."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.products import canonical_product
from enginesmith_contract.profile_checks import check_profiles, find_missing_values
from enginesmith_contract.tensors import ModelFacts
from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.api.targets import TargetSpec
from enginesmith_operator.api.translate import profiles
from enginesmith_operator.planning.message_sizes import check_messages
from enginesmith_operator.planning.refusals import Refusal
from enginesmith_operator.planning.snapshot import Observed, Policy

__all__ = [
    "check_document",
    "check_dtypes",
    "check_nodes",
    "check_product_policy",
    "check_toolchain_policy",
    "check_values",
    "known_facts",
]


def known_facts(observed: Observed) -> ModelFacts | None:
    """Return what is known of the model's inputs and outputs; the preparation's word goes before the file's."""
    return observed.preparation.facts if observed.preparation is not None else observed.model_facts


def check_document(spec: InferenceEngineSpec, observed: Observed) -> tuple[Refusal, ...]:
    """Return what forbids every target: policies, profiles that do not fit the model, messages that never fit."""
    profiles_refused = tuple(_check_profiles(spec, observed))
    facts = known_facts(observed)
    messages = () if facts is None or profiles_refused else check_messages(spec, facts, observed)
    return (*_check_policies(spec, observed), *profiles_refused, *messages)


def check_dtypes(target: TargetSpec, observed: Observed) -> tuple[Refusal, ...]:
    """Return the inputs and outputs that the target's backend cannot have."""
    facts = known_facts(observed)
    if facts is None:
        return ()
    row = traits(target.backend)
    lacks = row.missing_dtypes
    ends = [("input", spec) for spec in facts.inputs] + [("output", spec) for spec in facts.outputs]
    return tuple(
        Refusal(
            rule="DType",
            found=f"{kind} {spec.name!r} is {spec.dtype}: {row.title} has no tensors of this type",
            wanted=lacks[spec.dtype],
        )
        for kind, spec in ends
        if spec.dtype in lacks
    )


def check_values(target: TargetSpec, spec: InferenceEngineSpec, observed: Observed) -> tuple[Refusal, ...]:
    """Return the inputs that hold sizes and whose values the profiles leave open; ONNX Runtime needs no range."""
    facts = known_facts(observed)
    if facts is None or not traits(target.backend).value_ranges:
        return ()
    return tuple(
        Refusal(
            rule=problem.reason,
            found=problem.model_copy(update={"nearest": ""}).sentence(),
            wanted=f"add below its inputs, with your own values: {problem.nearest}",
        )
        for problem in find_missing_values(facts, profiles(spec))
    )


def check_nodes(target: TargetSpec, observed: Observed) -> tuple[Refusal, ...]:
    """Return the faults and cures of nodes that TensorRT does not take, for a target of it."""
    facts = known_facts(observed)
    if facts is None or traits(target.backend).matrix is None:
        return ()
    wanted = "change the model as said, or set backend: onnxruntime"
    return tuple(Refusal(rule="UnsupportedOperators", found=said, wanted=wanted) for said in facts.refused_nodes)


def check_product_policy(product: str | None, observed: Observed) -> Refusal | None:
    """Return the policy that forbids a GPU model in this namespace, None where there is none."""
    for policy in observed.policies:
        allowed = policy.gpu_products
        if product is not None and allowed is not None and not _fits(product, tuple(map(canonical_product, allowed))):
            found = f"EnginePolicy {policy.name} does not allow {product}"
            return Refusal(rule="PolicyGpuProduct", found=found, wanted=f"it allows {', '.join(allowed) or 'none'}")
    return None


def check_toolchain_policy(name: str, observed: Observed) -> Refusal | None:
    """Return the policy that forbids a toolchain in this namespace, None where there is none."""
    for policy in observed.policies:
        if policy.toolchains is not None and not _fits(name, policy.toolchains):
            found = f"EnginePolicy {policy.name} does not allow the toolchain {name}"
            wanted = f"it allows {', '.join(policy.toolchains) or 'none'}"
            return Refusal(rule="PolicyToolchain", found=found, wanted=wanted)
    return None


def _check_policies(spec: InferenceEngineSpec, observed: Observed) -> Iterator[Refusal]:
    for policy in observed.policies:
        yield from _check_policy(spec, policy)


def _check_policy(spec: InferenceEngineSpec, policy: Policy) -> Iterator[Refusal]:
    by = f"EnginePolicy {policy.name}"
    precision = spec.precision.default
    if policy.precisions is not None and precision not in policy.precisions:
        allowed = ", ".join(policy.precisions) or "none"
        yield Refusal(rule="PolicyPrecision", found=f"{by} does not allow {precision}", wanted=f"it allows {allowed}")
    level = spec.build.hardware_compatibility.contract_value
    if policy.hardware_compatibility is not None and level not in policy.hardware_compatibility:
        allowed = ", ".join(policy.hardware_compatibility) or "none"
        found = f"{by} does not allow hardwareCompatibility {level}"
        yield Refusal(rule="PolicyPortability", found=found, wanted=f"it allows {allowed}")
    if policy.require_digest and spec.model.sha256 is None:
        found = f"{by} wants the model's digest"
        yield Refusal(rule="PolicyDigest", found=found, wanted="set spec.model.sha256 (sha256sum prints it)")


def _check_profiles(spec: InferenceEngineSpec, observed: Observed) -> Iterator[Refusal]:
    facts = known_facts(observed)
    if facts is None:
        return
    for problem in check_profiles(facts, profiles(spec)):
        place = problem.model_copy(update={"nearest": ""}).sentence()
        wanted = f"use {problem.nearest}" if problem.nearest else ""
        if problem.reason == "ProfileMissing":
            wanted = "paste the suggested profile below spec and set its sizes"
        yield Refusal(rule=problem.reason, found=place, wanted=wanted)


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
