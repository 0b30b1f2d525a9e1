"""What EnginePolicies forbid: in the fields of a spec, among the GPUs of nodes, and in what serves. Pure.

The chart's ValidatingAdmissionPolicy (`templates/policy-admission.yaml`) says the same of the fields, in the same
words: `tests/planning/data/policies.yaml` holds both to it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from enginesmith_contract.backends import Toolchain
from enginesmith_contract.products import canonical_mig_profile
from enginesmith_operator.api.build import LARGEST_DEFAULT_WORKSPACE, BuildSpec
from enginesmith_operator.api.engine_policy import EnginePolicy, ModelSourceRule, PodTemplateField, PolicyLimits
from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.api.patterns import (
    WHOLE_GPU,
    allows_host,
    allows_image,
    allows_mig,
    allows_product,
    matches_any,
)
from enginesmith_operator.api.quantities import spell_bytes, spell_duration
from enginesmith_operator.api.targets import GpuSpec, TargetSpec, needs_gpu
from enginesmith_operator.api.verification import OutputGateSpec, VerificationSpec
from enginesmith_operator.planning.policy_defaults import find_conflicts
from enginesmith_operator.planning.refusals import Refusal

__all__ = [
    "Violation",
    "asked_gpus",
    "find_violations",
    "forbids_device",
    "forbids_toolchain",
    "largest_replicas",
    "select_policies",
    "strictest_gpu_limit",
]

_ASK: Final = "or ask the administrator to change the policy"
_CHANGE: Final = f"use what it allows, {_ASK}"
_REMEDIES: Final = {
    "PolicyToolchain": f"set spec.toolchain to a range with an allowed one, {_ASK}",
    "PolicyDefault": "set the field, or ask the administrator to change one of the policies",
    "PolicyImage": f"set spec.toolchain to a range with an allowed image, {_ASK}",
    "PolicyDigest": f"set it (sha256sum prints it), {_ASK}",
    "PolicySignature": f"sign the model and set spec.model.signature, {_ASK}",
}
_HOST: Final = re.compile(r"[^/?#]*")


class Violation(NamedTuple):
    """One thing that a policy forbids.

    Attributes:
        policy: name of the EnginePolicy.
        rule: CamelCase, stable.
        text: path of the field, and what is wrong with its value.
        target: name of the only target that is concerned; empty: all are.
    """

    policy: str
    rule: str
    text: str
    target: str = ""

    def sentence(self) -> str:
        """Return it as one line."""
        return f"EnginePolicy {self.policy}: {self.text}"

    def refusal(self) -> Refusal:
        """Return it as the "no" of a plan."""
        return Refusal(rule=self.rule, found=self.sentence(), wanted=_REMEDIES.get(self.rule, _CHANGE))


def select_policies(
    policies: Iterable[EnginePolicy], namespace: str, labels: Mapping[str, str] | None
) -> tuple[EnginePolicy, ...]:
    """Return the policies that hold for a namespace, by name; labels that are not known (None) are taken to match."""
    chosen = (one for one in policies if one.spec.namespace_selector.selects(namespace, labels))
    return tuple(sorted(chosen, key=lambda one: one.name))


def find_violations(spec: InferenceEngineSpec, policies: Iterable[EnginePolicy]) -> tuple[Violation, ...]:
    """Return everything in the fields of a spec that a policy forbids, and defaults that contradict each other."""
    held = tuple(policies)
    conflicts = (Violation(one.policy, "PolicyDefault", one.text) for one in find_conflicts(spec, held))
    return (*conflicts, *(one for policy in held for one in _of_policy(spec, policy)))


def forbids_device(
    product: str | None, mig_profile: str | None, policies: Iterable[EnginePolicy], target: str = ""
) -> Violation | None:
    """Return the first policy that forbids a GPU, or a slice of one; a product of None is a CPU."""
    if product is None:
        return None
    for policy in policies:
        products, profiles = policy.spec.gpu_products, policy.spec.mig_profiles
        if products is not None and not allows_product(product, products):
            return Violation(policy.name, "PolicyGpuProduct", _not_allowed(product, products), target)
        if profiles is not None and not allows_mig(mig_profile, profiles):
            text = _not_allowed(f"{product} {canonical_mig_profile(mig_profile) or WHOLE_GPU}", profiles)
            return Violation(policy.name, "PolicyMigProfile", text, target)
    return None


def forbids_toolchain(toolchain: Toolchain, policies: Iterable[EnginePolicy], target: str = "") -> Violation | None:
    """Return the first policy that forbids a toolchain, or its image; in local mode there is no image."""
    for policy in policies:
        names, images = policy.spec.toolchains, policy.spec.images
        if names is not None and not matches_any(toolchain.name, names):
            return Violation(policy.name, "PolicyToolchain", _not_allowed(f"toolchain {toolchain.name}", names), target)
        if images is not None and toolchain.image is not None and not allows_image(toolchain.image, images):
            text = _not_allowed(f"image {toolchain.image} of toolchain {toolchain.name}", images)
            return Violation(policy.name, "PolicyImage", text, target)
    return None


def largest_replicas(target: TargetSpec) -> int:
    """Return how many pods a target may have."""
    return target.replicas if target.autoscaling is None else target.autoscaling.max_replicas


def asked_gpus(spec: InferenceEngineSpec) -> int:
    """Return how many GPUs a spec asks for by itself; a standby serves instead of the others."""
    counted = (one for number, one in enumerate(spec.targets) if number == 0 or not one.standby)
    return sum(largest_replicas(one) for one in counted if needs_gpu(one))


def strictest_gpu_limit(policies: Iterable[EnginePolicy]) -> tuple[int, str] | None:
    """Return how many GPUs a namespace may have, and the policy that says so; None: no policy limits them."""
    limits = ((one.spec.limits.gpus, one.name) for one in policies)
    return min(((most, name) for most, name in limits if most is not None), default=None)


def _of_policy(spec: InferenceEngineSpec, policy: EnginePolicy) -> Iterator[Violation]:
    for rule, text in (
        *_precision(spec, policy),
        *_portability(spec, policy),
        *_digests(spec, policy),
        *_signature(spec, policy),
        *_sources(spec, policy),
        *_limits(spec, policy),
        *_pod_fields(spec, policy),
        *_verification(spec, policy),
        *_images(spec, policy),
    ):
        yield Violation(policy.name, rule, text)
    yield from _targets(spec, policy)


def _precision(spec: InferenceEngineSpec, policy: EnginePolicy) -> Iterator[tuple[str, str]]:
    allowed = policy.spec.precisions
    if allowed is None:
        return
    if spec.precision.default not in allowed:
        yield "PolicyPrecision", f"spec.precision: {_not_allowed(spec.precision.default, allowed)}"
    for word in spec.precision.fallback:
        if word not in allowed:
            yield "PolicyPrecision", f"spec.precision.fallback: {_not_allowed(word, allowed)}"


def _portability(spec: InferenceEngineSpec, policy: EnginePolicy) -> Iterator[tuple[str, str]]:
    allowed, level = policy.spec.hardware_compatibility, spec.build.hardware_compatibility
    if allowed is not None and level not in allowed:
        yield "PolicyPortability", f"spec.build.hardwareCompatibility: {_not_allowed(level, allowed)}"


def _digests(spec: InferenceEngineSpec, policy: EnginePolicy) -> Iterator[tuple[str, str]]:
    if not policy.spec.digest_required:
        return
    if spec.model.sha256 is None:
        yield "PolicyDigest", "spec.model.sha256: a digest is required"
    if spec.precision.calibration is not None and spec.precision.calibration.digest is None:
        yield "PolicyDigest", "spec.precision.calibration.digest: a digest is required"


def _signature(spec: InferenceEngineSpec, policy: EnginePolicy) -> Iterator[tuple[str, str]]:
    allowed = policy.spec.model_signers
    if allowed is not None and spec.model.signature is None:
        text = f"a signature is required (of one of the keys: {', '.join(allowed) or 'none'})"
        yield "PolicySignature", f"spec.model.signature: {text}"


def _sources(spec: InferenceEngineSpec, policy: EnginePolicy) -> Iterator[tuple[str, str]]:
    allowed = policy.spec.model_sources
    if allowed is None:
        return
    endpoint = spec.model.options.get("endpoint", "")
    for field, uri in _uris(spec):
        scheme, host = _split(uri)
        if not any(_is_source(one, scheme, host, endpoint) for one in allowed):
            named = _source_text(scheme, host, endpoint)
            yield "PolicyModelSource", f"{field}: {_not_allowed(named, map(_rule_text, allowed))}"


def _uris(spec: InferenceEngineSpec) -> Iterator[tuple[str, str]]:
    yield "spec.model.uri", spec.model.uri
    if spec.precision.calibration is not None:
        yield "spec.precision.calibration", spec.precision.calibration.source
    for name, values in sorted(spec.verification.inputs.items()):
        if values.npz is not None:
            yield f"spec.verification.inputs[{name}].npz", values.npz
    for number, plugin in enumerate(spec.build.plugins):
        yield f"spec.build.plugins[{number}].uri", plugin.uri


def _split(uri: str) -> tuple[str, str]:
    scheme, found, rest = uri.partition("://")
    match = _HOST.match(rest)
    return (scheme, match[0] if match else "") if found else ("file", "")


def _is_source(allowed: ModelSourceRule, scheme: str, host: str, endpoint: str) -> bool:
    if scheme != allowed.scheme or (allowed.names is not None and not allows_host(host, allowed.names)):
        return False
    return not endpoint if allowed.endpoints is None else endpoint in allowed.endpoints


def _source_text(scheme: str, host: str, endpoint: str) -> str:
    return f"{scheme}://{host}" + (f" at {endpoint}" if endpoint else "")


def _rule_text(allowed: ModelSourceRule) -> str:
    names = "*" if allowed.names is None else "|".join(allowed.names)
    return _source_text(allowed.scheme, names, "|".join(allowed.endpoints or ()))


def _limits(spec: InferenceEngineSpec, policy: EnginePolicy) -> Iterator[tuple[str, str]]:
    limits, build = policy.spec.limits, spec.build
    yield from _build_limits(build, limits)
    asked = asked_gpus(spec)
    if limits.gpus is not None and asked > limits.gpus:
        yield "PolicyGpus", f"spec.targets: {asked} GPUs are more than {limits.gpus}"


def _build_limits(build: BuildSpec, limits: PolicyLimits) -> Iterator[tuple[str, str]]:
    if limits.build_timeout is not None and build.timeout_seconds > limits.build_timeout:
        asked, most = spell_duration(build.timeout_seconds), spell_duration(limits.build_timeout)
        yield "PolicyLimit", f"spec.build.timeout: {asked} is more than {most}"
    if limits.workspace is None:
        return
    most_bytes = spell_bytes(limits.workspace)
    if build.workspace_bytes is None and limits.workspace < LARGEST_DEFAULT_WORKSPACE:
        yield "PolicyLimit", f"spec.build.workspace: the default of up to 2Gi is more than {most_bytes}"
    if build.workspace_bytes is not None and build.workspace_bytes > limits.workspace:
        yield "PolicyLimit", f"spec.build.workspace: {spell_bytes(build.workspace_bytes)} is more than {most_bytes}"


def _pod_fields(spec: InferenceEngineSpec, policy: EnginePolicy) -> Iterator[tuple[str, str]]:
    allowed = policy.spec.pod_template_fields
    if allowed is None:
        return
    places = (("podTemplate", spec.pod_template), ("build", spec.build))
    for place, part in places:
        written = part.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        for field in PodTemplateField:
            if written.get(field) and field not in allowed:
                yield "PolicyPodTemplate", f"spec.{place}.{field}: {_not_allowed('the field', allowed)}"


def _verification(spec: InferenceEngineSpec, policy: EnginePolicy) -> Iterator[tuple[str, str]]:
    rules, asked = policy.spec.verification, spec.verification
    largest, mismatches, agreement = rules.largest_limit, rules.largest_mismatches, rules.smallest_agreement
    if largest is not None and asked.limit is None:
        yield "PolicyVerification", f"spec.verification.limit: it must be set, to at most {largest:g}"
    if agreement is not None and asked.agreement is None and spec.precision.calibration is not None:
        yield "PolicyVerification", f"spec.verification.agreement: it must be set, to at least {agreement:g}"
    for field, bound, sign, words in (
        ("limit", largest, 1, "more"),
        ("mismatches", mismatches, 1, "more"),
        ("agreement", agreement, -1, "less"),
    ):
        for place, gate in _gates(asked):
            value = getattr(gate, field)
            if bound is not None and value is not None and sign * (value - bound) > 0:
                yield "PolicyVerification", f"{place}.{field}: {value:g} is {words} than {bound:g}"


def _images(spec: InferenceEngineSpec, policy: EnginePolicy) -> Iterator[tuple[str, str]]:
    allowed, metric = policy.spec.images, spec.verification.metric_container
    if allowed is not None and metric is not None and not allows_image(metric.image, allowed):
        yield "PolicyImage", f"spec.verification.metricContainer.image: {_not_allowed(metric.image, allowed)}"


def _gates(asked: VerificationSpec) -> Iterator[tuple[str, VerificationSpec | OutputGateSpec]]:
    yield "spec.verification", asked
    for name, gate in sorted(asked.outputs.items()):
        yield f"spec.verification.outputs[{name}]", gate


def _targets(spec: InferenceEngineSpec, policy: EnginePolicy) -> Iterator[Violation]:
    products, profiles = policy.spec.gpu_products, policy.spec.mig_profiles
    taken = [
        (f"spec.targets[{number}].gpu", target.name, target.gpu or GpuSpec())
        for number, target in enumerate(spec.targets)
        if needs_gpu(target)
    ]
    for place, name, gpu in taken:
        if products is not None and _lacks_product(gpu.product, products):
            text = f"{place}.product: {_not_allowed(gpu.product or 'a GPU', products)}"
            yield Violation(policy.name, "PolicyGpuProduct", text, name)
    for place, name, gpu in taken:
        if profiles is not None and not allows_mig(gpu.mig_profile, profiles):
            text = f"{place}.migProfile: {_not_allowed(gpu.mig_profile or WHOLE_GPU, profiles)}"
            yield Violation(policy.name, "PolicyMigProfile", text, name)


def _lacks_product(asked: str | None, allowed: tuple[str, ...]) -> bool:
    """Whether no allowed GPU can be meant; without a product any allowed one is."""
    return not allowed or (asked is not None and not allows_product(asked, allowed))


def _not_allowed(found: str, allowed: Iterable[str]) -> str:
    return f"{found} is not allowed (allowed: {', '.join(allowed) or 'none'})"
