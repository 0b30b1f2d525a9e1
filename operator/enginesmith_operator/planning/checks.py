"""What can be said of a document before any node is looked at: policies, datatypes and shape profiles."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from enginesmith_contract.backends import Backend
from enginesmith_contract.products import canonical_product
from enginesmith_contract.profile_checks import check_profiles, find_missing_values
from enginesmith_contract.tensors import DType, ModelFacts
from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.api.targets import TargetSpec
from enginesmith_operator.api.translate import profiles
from enginesmith_operator.planning.refusals import Refusal
from enginesmith_operator.planning.snapshot import Observed, Policy

__all__ = [
    "check_document",
    "check_dtypes",
    "check_product_policy",
    "check_toolchain_policy",
    "check_values",
    "known_facts",
]

_NO_TENSORRT_TYPE: Final = "TensorRT has no tensors of this type"
_NARROW: Final = "cast it in the model to INT32, or set backend: onnxruntime"
# By backend: what its inputs and outputs cannot be, and what to do. ONNX Runtime takes every type.
_TENSORRT_LACKS: Final = {
    DType.BYTES: "tokenise outside the model, or set backend: onnxruntime",
    DType.FP64: "cast it in the model to FP32, or set backend: onnxruntime",
    DType.INT16: _NARROW,
    DType.UINT16: _NARROW,
    DType.UINT32: _NARROW,
    DType.UINT64: "cast it in the model to INT64, or set backend: onnxruntime",
}
_LACKS: Final = {Backend.TENSORRT: _TENSORRT_LACKS, Backend.TENSORRT_RTX: _TENSORRT_LACKS, Backend.ONNXRUNTIME: {}}


def known_facts(observed: Observed) -> ModelFacts | None:
    """Return what is known of the model's inputs and outputs; the preparation's word goes before the file's."""
    return observed.preparation.facts if observed.preparation is not None else observed.model_facts


def check_document(spec: InferenceEngineSpec, observed: Observed) -> tuple[Refusal, ...]:
    """Return what forbids every target: policies, and profiles that do not fit the model."""
    return (*_check_policies(spec, observed), *_check_profiles(spec, observed))


def check_dtypes(target: TargetSpec, observed: Observed) -> tuple[Refusal, ...]:
    """Return the inputs and outputs that the target's backend cannot have."""
    facts = known_facts(observed)
    if facts is None:
        return ()
    lacks = _LACKS[target.backend]
    ends = [("input", spec) for spec in facts.inputs] + [("output", spec) for spec in facts.outputs]
    return tuple(
        Refusal(
            rule="DType",
            found=f"{kind} {spec.name!r} is {spec.dtype}: {_NO_TENSORRT_TYPE}",
            wanted=lacks[spec.dtype],
        )
        for kind, spec in ends
        if spec.dtype in lacks
    )


def check_values(target: TargetSpec, spec: InferenceEngineSpec, observed: Observed) -> tuple[Refusal, ...]:
    """Return the inputs that hold sizes and whose values the profiles leave open; ONNX Runtime needs no range."""
    facts = known_facts(observed)
    if facts is None or target.backend is Backend.ONNXRUNTIME:
        return ()
    return tuple(
        Refusal(
            rule=problem.reason,
            found=problem.model_copy(update={"nearest": ""}).sentence(),
            wanted=f"add below its inputs, with your own values: {problem.nearest}",
        )
        for problem in find_missing_values(facts, profiles(spec))
    )


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
