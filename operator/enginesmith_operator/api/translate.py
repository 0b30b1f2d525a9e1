"""Conversion of an InferenceEngine's spec into values of the contract; the only place that knows both spellings."""

from enginesmith_contract.backends import PrecisionPolicy
from enginesmith_contract.build_request import BuildOptions, PluginLibrary
from enginesmith_contract.preparation import ModelSource
from enginesmith_contract.profiles import Profile, ShapeRange, ValueRange
from enginesmith_contract.verification import InputValues, OutputGate, VerificationPolicy
from enginesmith_operator.api.build import default_workspace_bytes
from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.api.profiles import ValueRangeSpec
from enginesmith_operator.api.verification import InputValuesSpec

__all__ = ["build_options", "model_source", "precision_policy", "profiles", "verification_policy"]


def model_source(spec: InferenceEngineSpec) -> ModelSource:
    """Return the source of the model, without credentials."""
    return ModelSource(uri=spec.model.uri, sha256=spec.model.sha256, options=dict(spec.model.options))


def precision_policy(spec: InferenceEngineSpec) -> PrecisionPolicy:
    """Return the precision policy of the model."""
    precision = spec.precision
    return PrecisionPolicy(
        default=precision.default,
        keep=precision.keep,
        auto_keep=precision.auto_keep,
        calibration=precision.calibration,
    )


def profiles(spec: InferenceEngineSpec) -> tuple[Profile, ...]:
    """Return the profiles in the user's order; empty if there are none."""
    return tuple(
        Profile(
            name=profile.name,
            inputs={
                name: ShapeRange(min=shapes.min, opt=shapes.opt, max=shapes.max, values=_value_range(shapes.values))
                for name, shapes in profile.inputs.items()
            },
        )
        for profile in spec.profiles
    )


def verification_policy(spec: InferenceEngineSpec) -> VerificationPolicy:
    """Return the verification that the engine must pass."""
    verification = spec.verification
    inputs = {name: _input_values(values) for name, values in verification.inputs.items()}
    outputs = {
        name: OutputGate(limit=gate.limit, mismatches=gate.mismatches) for name, gate in verification.outputs.items()
    }
    return VerificationPolicy(
        metric=verification.metric.value,
        limit=verification.limit,
        mismatches=verification.mismatches or None,
        inputs=inputs,
        outputs=outputs or None,
    )


def build_options(spec: InferenceEngineSpec, *, model_size_bytes: int | None = None) -> BuildOptions:
    """Return the settings of the builder.

    Args:
        spec: Spec of the InferenceEngine.
        model_size_bytes: Size of the model and its weights, which decides the default workspace; None if unknown.
    """
    build = spec.build
    workspace = build.workspace_bytes
    if workspace is None and model_size_bytes is not None:
        workspace = default_workspace_bytes(model_size_bytes)
    return BuildOptions(
        workspace_bytes=None if workspace is None else int(workspace),
        optimization_level=build.optimization_level,
        timeout_seconds=float(build.timeout_seconds),
        hardware_compatibility=build.hardware_compatibility.contract_value,
        version_compatible=build.version_compatible,
        weight_streaming=build.weight_streaming,
        refittable=build.refittable,
        plugins=tuple(PluginLibrary(uri=plugin.uri, sha256=plugin.sha256) for plugin in build.plugins),
    )


def _value_range(values: ValueRangeSpec | None) -> ValueRange | None:
    return None if values is None else ValueRange(min=values.min, opt=values.opt, max=values.max)


def _input_values(values: InputValuesSpec) -> InputValues:
    pair = None if values.range is None else (values.range[0], values.range[1])
    return InputValues(range=pair, constant=values.constant, npz=values.npz)
