"""Parts of the CRDs that do not follow from a field's type: CEL rules, lists with unique names, exceptions.

The rules repeat checks that the types make, so that `kubectl apply` refuses at once what the operator would refuse
later. They index with a literal list instead of two-variable comprehensions, which API servers before 1.33 lack.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from enginesmith_contract import reserved_variables
from enginesmith_contract.backend_traits import list_traits
from enginesmith_contract.backends import Hardware, Precision
from enginesmith_contract.verification import OutputGate, VerificationPolicy
from enginesmith_operator.api.build import QUICK_LEVEL, BuildSpec
from enginesmith_operator.api.engine_build import BuildPlacement, EngineBuildSpec, EngineBuildStatus
from enginesmith_operator.api.engine_policy import EnginePolicySpec
from enginesmith_operator.api.engine_status import EngineStatus
from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.api.model import MODEL_SCHEMES, ModelSpec, PreprocessSpec
from enginesmith_operator.api.pod_template import EnvSource, EnvVar, PodTemplate, ResourceRequirements, Toleration
from enginesmith_operator.api.precision import PrecisionSpec
from enginesmith_operator.api.profiles import MAX_RANK, ProfileSpec, ShapeRangeSpec, ValueRangeSpec
from enginesmith_operator.api.queueing import BatchingSpec, QueueSpec
from enginesmith_operator.api.serving_access import ClientLimitsSpec
from enginesmith_operator.api.store import OciStore, PvcStore, S3Store, StoreSpec
from enginesmith_operator.api.targets import AutoscalingSpec, TargetSpec
from enginesmith_operator.api.verification import InputValuesSpec

__all__ = ["BUILD_ROOT_RULES", "ENGINE_ROOT_RULES", "MAP_LISTS", "OVERRIDES", "RULES", "UNDEFAULTED", "Rule"]


class Rule(NamedTuple):
    """One CEL rule, and the message if it fails."""

    rule: str
    message: str


_REMOTE: Final = tuple(scheme for scheme in MODEL_SCHEMES if scheme != "file")
_FREE_VARIABLES: Final = json.dumps(sorted(reserved_variables.ALLOWED))
_INDEXES: Final = str(list(range(MAX_RANK)))
_LEVELLED: Final = [row.backend.value for row in list_traits() if row.optimization_levels]
_PROFILE_NAME: Final = ProfileSpec.model_fields["name"].default


def _ordered(low: str, high: str) -> Rule:
    compared = f"{_INDEXES}.all(i, i >= size(self.{low}) || i >= size(self.{high}) || self.{low}[i] <= self.{high}[i])"
    return Rule(compared, f"every dimension of {low} must be at most that of {high}")


def _named(profile: str) -> str:
    return f"(has({profile}.name) ? {profile}.name : '{_PROFILE_NAME}')"


def _inside(field: str) -> Rule:
    return Rule(
        f"!has(self.{field}) || !self.{field}.split('/').exists(part, part == '..')",
        f"{field}: the path leaves its folder; write it without ..",
    )


_NO_SYSTEM_CLASS: Final = Rule(
    "!has(self.priorityClassName) || !self.priorityClassName.startsWith('system-')",
    "priorityClassName: the classes system-... are for the cluster's own pods, which they let take the place of all "
    "others; name another PriorityClass",
)


def _exactly_one(*fields: str) -> Rule:
    counted = " + ".join(f"(has(self.{field}) ? 1 : 0)" for field in fields)
    return Rule(f"{counted} == 1", f"expected exactly one of {', '.join(fields)}")


_DEFAULTS_THAT_FIT: Final = (
    ("precision", "precisions", "self.defaults.precision in self.precisions"),
    ("build.timeout", "limits.buildTimeout", "duration({default}) <= duration({bound})"),
    ("build.workspace", "limits.workspace", "quantity(string({default})).compareTo(quantity(string({bound}))) <= 0"),
    ("verification.limit", "verification.largestLimit", "{default} <= {bound}"),
    ("verification.agreement", "verification.smallestAgreement", "{default} >= {bound}"),
)


def _has(path: str) -> str:
    parts = path.split(".")
    return " && ".join(f"has(self.{'.'.join(parts[:end])})" for end in range(1, len(parts) + 1))


def _default_fits(field: str, bound: str, fits: str) -> Rule:
    said = fits.format(default=f"self.defaults.{field}", bound=f"self.{bound}")
    return Rule(
        f"!({_has(f'defaults.{field}')} && {_has(bound)}) || {said}",
        f"defaults.{field}: the default is not what the policy allows in {bound}",
    )


RULES: Final[Mapping[type[BaseModel], tuple[Rule, ...]]] = {
    InferenceEngineSpec: (
        Rule(
            "!has(self.targets) || self.targets.all(t, self.targets.exists_one(other, other.name == t.name))",
            "the names of targets must be unique",
        ),
        Rule(
            "!has(self.profiles) || "
            f"self.profiles.all(p, self.profiles.exists_one(other, {_named('other')} == {_named('p')}))",
            f"the names of profiles must be unique; one without a name is called {_PROFILE_NAME}",
        ),
        Rule(
            "!has(self.build) || !has(self.build.quickStart) || !self.build.quickStart || !has(self.targets) || "
            f"self.targets.exists(t, !has(t.backend) || t.backend in {_LEVELLED})",
            f"build.quickStart needs a target with one of the backends {_LEVELLED}: a low optimization level does not "
            "shorten the builds of the others",
        ),
    ),
    BuildSpec: (
        Rule(
            f"!has(self.quickStart) || !self.quickStart || !has(self.optimizationLevel) || "
            f"self.optimizationLevel > {QUICK_LEVEL}",
            f"quickStart: every engine is built at level {QUICK_LEVEL}, so a quick engine would be the same",
        ),
        _NO_SYSTEM_CLASS,
    ),
    PodTemplate: (_NO_SYSTEM_CLASS,),
    BuildPlacement: (_NO_SYSTEM_CLASS,),
    PvcStore: (_inside("subPath"),),
    S3Store: (_inside("prefix"),),
    OciStore: (_inside("repository"),),
    ShapeRangeSpec: (
        Rule(
            "size(self.min) == size(self.opt) && size(self.opt) == size(self.max)",
            "min, opt and max must have the same number of dimensions",
        ),
        _ordered("min", "opt"),
        _ordered("opt", "max"),
    ),
    ValueRangeSpec: (
        Rule(
            "size(self.min) == size(self.opt) && size(self.opt) == size(self.max)",
            "min, opt and max must have the same number of values",
        ),
    ),
    AutoscalingSpec: (
        Rule(
            "!has(self.minReplicas) || self.minReplicas <= self.maxReplicas", "minReplicas must be at most maxReplicas"
        ),
    ),
    TargetSpec: (
        Rule(
            "!has(self.provider) || (has(self.backend) && self.backend == 'onnxruntime')",
            "provider is only for the backend onnxruntime",
        ),
        Rule("!(has(self.replicas) && has(self.autoscaling))", "replicas and autoscaling must not be set together"),
    ),
    BatchingSpec: (
        Rule(
            "!has(self.enabled) || self.enabled || ((!has(self.maxQueueDelay) || duration(self.maxQueueDelay) == "
            "duration('0s')) && (!has(self.preferredBatchSizes) || size(self.preferredBatchSizes) == 0) && "
            "!has(self.maxBatchSize))",
            "maxQueueDelay, preferredBatchSizes and maxBatchSize have no effect if enabled is false",
        ),
        Rule(
            "!has(self.maxBatchSize) || !has(self.preferredBatchSizes) || "
            "self.preferredBatchSizes.all(size, size <= self.maxBatchSize)",
            "preferredBatchSizes: no size may be larger than maxBatchSize",
        ),
    ),
    QueueSpec: (
        Rule(
            "!has(self.defaultPriorityLevel) || (has(self.priorityLevels) && "
            "self.defaultPriorityLevel <= self.priorityLevels)",
            "defaultPriorityLevel must be at most priorityLevels",
        ),
    ),
    ClientLimitsSpec: (
        Rule("has(self.maxInFlight) || has(self.requestsPerSecond)", "expected maxInFlight or requestsPerSecond"),
    ),
    InputValuesSpec: (
        _exactly_one("range", "constant", "npz"),
        Rule("!has(self.range) || self.range[0] <= self.range[1]", "range: the smaller value must come first"),
    ),
    StoreSpec: (
        _exactly_one("pvc", "s3", "oci", "path"),
        Rule("!has(self.path)", "path: a local folder is not reachable from the cluster"),
    ),
    EnginePolicySpec: tuple(_default_fits(*one) for one in _DEFAULTS_THAT_FIT),
    EngineBuildSpec: (Rule("self == oldSelf", "the spec is immutable: create another EngineBuild for another build"),),
    ResourceRequirements: (
        Rule(
            "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || "
            "quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)",
            "a request must not be larger than the limit of the same resource",
        ),
    ),
    Toleration: (
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds is only for the effect NoExecute",
        ),
        Rule(
            "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
            "value is only for the operator Equal",
        ),
        Rule(
            "(has(self.operator) && self.operator == 'Exists') || (has(self.key) && self.key != '')",
            "a toleration without a key needs the operator Exists",
        ),
    ),
    EnvSource: (_exactly_one("secretKeyRef", "configMapKeyRef", "fieldRef"),),
    EnvVar: (
        Rule("!(has(self.value) && has(self.valueFrom))", "value and valueFrom must not be set together"),
        Rule(
            f"self.name in {_FREE_VARIABLES} || !self.name.upperAscii().matches('{reserved_variables.PATTERN}')",
            "name: this variable changes what the pods' processes load, so it is not allowed",
        ),
    ),
    PreprocessSpec: (Rule("size(self.mean) == size(self.std)", "mean and std must have one value for each channel"),),
    ModelSpec: (
        Rule(
            f"self.uri.matches('^({'|'.join(_REMOTE)})://.')",
            f"uri: expected one of the schemes {', '.join(_REMOTE)}; a local file is not reachable from the cluster",
        ),
    ),
}

ENGINE_ROOT_RULES: Final = (
    Rule(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')",
        "metadata.name: expected 1 to 63 of a-z, 0-9 and '-', starting with a letter (it names Services)",
    ),
)
BUILD_ROOT_RULES: Final = (
    Rule(
        "size(self.metadata.name) <= 63",
        "metadata.name: expected at most 63 characters (the Job has the same name)",
    ),
)

MAP_LISTS: Final[Mapping[tuple[type[BaseModel], str], str]] = {
    (InferenceEngineSpec, "targets"): "name",
    (ModelSpec, "preprocess"): "input",
    (EngineStatus, "targets"): "name",
    (EngineStatus, "conditions"): "type",
    (EngineBuildStatus, "conditions"): "type",
}
"""Lists whose entries are identified by one of their fields."""

# A word or a mapping. Structural schemas have no union, so the API server checks the word, the operator the mapping.
_PRECISION: Final[Mapping[str, Any]] = {
    "x-kubernetes-preserve-unknown-fields": True,
    "pattern": f"^({'|'.join(precision.value for precision in Precision)})$",
    "maxLength": 16,
    "maxProperties": len(PrecisionSpec.model_fields),
}

_COUNT: Final[Mapping[str, Any]] = {"type": "integer", "format": "int64", "minimum": 0, "maximum": (1 << 31) - 1}

_LIMIT: Final[Mapping[str, Any]] = {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1000}
_SHARE: Final[Mapping[str, Any]] = {"type": "number", "minimum": 0, "maximum": 1}

UNDEFAULTED: Final = frozenset({(BuildSpec, "timeout")})
"""Fields that the API server leaves out: an EnginePolicy may have another default."""

OVERRIDES: Final[Mapping[tuple[type[BaseModel], str], Mapping[str, Any]]] = {
    (InferenceEngineSpec, "precision"): _PRECISION,
    # A node label may have any value, and an invalid value must not stop a pass.
    (Hardware, "memoryMib"): _COUNT,
    (Hardware, "multiprocessors"): _COUNT,
    # As in `spec.verification` of an InferenceEngine.
    (VerificationPolicy, "limit"): _LIMIT,
    (VerificationPolicy, "mismatches"): _SHARE,
    (VerificationPolicy, "agreement"): _SHARE,
    (OutputGate, "limit"): _LIMIT,
    (OutputGate, "mismatches"): _SHARE,
    (OutputGate, "agreement"): _SHARE,
    (OutputGate, "axis"): {"type": "integer", "format": "int64", "minimum": 0, "maximum": 15},
    (OutputGate, "threshold"): {"type": "number", "minimum": -1e6, "maximum": 1e6},
    # No default: with one, a target that autoscales would have both.
    (TargetSpec, "replicas"): {"type": "integer", "format": "int64", "minimum": 0, "maximum": 10_000},
}
