"""What can be said of a document before any node is looked at: policies, datatypes and shape profiles."""

from collections.abc import Iterator

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.limits import NOT_FINITE
from enginesmith_contract.profile_checks import check_profiles, find_missing_values
from enginesmith_contract.tensors import ExpectedDifference, ModelFacts
from enginesmith_contract.verification import OutputGate, VerificationPolicy
from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.api.targets import TargetSpec
from enginesmith_operator.api.translate import precision_policy, profiles, verification_policy
from enginesmith_operator.planning.message_sizes import check_messages
from enginesmith_operator.planning.policies import find_violations
from enginesmith_operator.planning.refusals import Refusal
from enginesmith_operator.planning.signers import check_signers
from enginesmith_operator.planning.snapshot import Observed

__all__ = [
    "check_document",
    "check_dtypes",
    "check_nodes",
    "check_precision",
    "check_target_policies",
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
    violations = find_violations(spec, observed.policies)
    # Where the whole document is refused, what is forbidden of single targets is said too.
    policies = () if all(one.target for one in violations) else tuple(one.refusal() for one in violations)
    return (*observed.unreadable_policies, *policies, *check_signers(spec, observed), *profiles_refused, *messages)


def check_target_policies(target: TargetSpec, spec: InferenceEngineSpec, observed: Observed) -> tuple[Refusal, ...]:
    """Return what policies forbid of one target."""
    return tuple(one.refusal() for one in find_violations(spec, observed.policies) if one.target == target.name)


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


def check_precision(spec: InferenceEngineSpec, observed: Observed) -> tuple[Refusal, ...]:
    """Return the worst output that differs by more than its limit as a CPU computes the precision.

    Engines on an H200 were off by 1.05 to 3 times what the CPU said (PP-OCRv4): what fails there fails on the GPU too.
    """
    facts = known_facts(observed)
    asked = verification_policy(spec)
    beyond = [
        (one, limit)
        for one in (facts.expected_differences or () if facts is not None else ())
        if one.difference > (limit := _limit_of(one, asked))
    ]
    return tuple(
        Refusal(
            rule="PrecisionBeyondLimit",
            found=f"output {one.output!r} {_far(one)} in {spec.precision.default} computed on a CPU, limit {limit:g}",
            wanted=_cure(one, spec),
        )
        for one, limit in beyond[:1]
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
    wanted = "change the model as described, or set backend: onnxruntime"
    return tuple(Refusal(rule="UnsupportedOperators", found=said, wanted=wanted) for said in facts.refused_nodes)


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


def _limit_of(one: ExpectedDifference, asked: VerificationPolicy) -> float:
    of_output = (asked.outputs or {}).get(one.output, OutputGate()).limit
    return next(limit for limit in (of_output, asked.limit, one.limit) if limit is not None)


def _far(one: ExpectedDifference) -> str:
    if one.difference >= NOT_FINITE:
        return "has NaN or infinity where the model has numbers"
    return f"differs by {one.difference:.3g} (max|a-b| / max|b|)"


def _cure(one: ExpectedDifference, spec: InferenceEngineSpec) -> str:
    real = any(values.npz is not None for values in spec.verification.inputs.values())
    samples = [] if real else ["give real samples in verification.inputs (npz), because the references are noise"]
    wider = (
        []
        if one.difference >= NOT_FINITE
        else [f"set verification.outputs.{one.output}.limit to {2 * one.difference:.2g} if the task allows it"]
    )
    keep = f"keep layers in FP32 ({', '.join(precision_policy(spec).unused_keep_fields)})"
    return "; or ".join((*samples, keep, *wider, "use precision fp32"))
