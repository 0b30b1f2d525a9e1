"""Conversion of an InferenceEngine's spec into values of the contract; the only place that knows both spellings."""

from collections.abc import Mapping

from enginesmith_contract.backends import PrecisionPolicy
from enginesmith_contract.build_request import BuildOptions, PluginLibrary
from enginesmith_contract.calibration import AutoKeep, Calibration, ImageReading
from enginesmith_contract.metric_container import MetricContainer
from enginesmith_contract.preparation import ModelSource
from enginesmith_contract.preprocess import Preprocess
from enginesmith_contract.profiles import Profile, ShapeRange, ValueRange
from enginesmith_contract.verification import InputValues, OutputGate, VerificationPolicy
from enginesmith_operator.api.build import default_workspace_bytes
from enginesmith_operator.api.calibration import CalibrationSpec, ImageReadingSpec
from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.api.precision import PrecisionSpec
from enginesmith_operator.api.profiles import ValueRangeSpec
from enginesmith_operator.api.verification import InputValuesSpec, MetricContainerSpec

__all__ = ["build_options", "model_source", "precision_policy", "preprocess", "profiles", "verification_policy"]


def model_source(spec: InferenceEngineSpec, signers: Mapping[str, str] | None = None) -> ModelSource:
    """Return the source of the model, without credentials.

    Args:
        spec: Specification of the InferenceEngine.
        signers: Public keys by name, of which one must have signed the model. If None, signatures are not looked for.
    """
    model = spec.model
    source = ModelSource(uri=model.uri, sha256=model.sha256, options=dict(model.options))
    return source if signers is None else source.model_copy(update={"signature": model.signature, "signers": signers})


def precision_policy(spec: InferenceEngineSpec) -> PrecisionPolicy:
    """Return the precision policy of the model."""
    precision = spec.precision
    return PrecisionPolicy(
        default=precision.default,
        keep=precision.keep,
        auto_keep=_auto_keep(precision, spec.verification.agreement),
        calibration=_calibration(precision.calibration),
    )


def preprocess(spec: InferenceEngineSpec) -> tuple[Preprocess, ...] | None:
    """Return the normalisation of image inputs; None if there is none."""
    return (
        tuple(
            Preprocess(input=one.input, source=one.source, mean=one.mean, std=one.std, scale=one.scale)
            for one in spec.model.preprocess
        )
        or None
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
        name: OutputGate(
            limit=gate.limit,
            mismatches=gate.mismatches,
            agreement=gate.agreement,
            decode=gate.decode,
            axis=gate.axis,
            threshold=gate.threshold,
        )
        for name, gate in verification.outputs.items()
    }
    return VerificationPolicy(
        metric=verification.metric.value,
        limit=verification.limit,
        mismatches=verification.mismatches or None,
        agreement=verification.agreement,
        inputs=inputs,
        outputs=outputs or None,
        metric_container=_metric_container(verification.metric_container),
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


def _metric_container(asked: MetricContainerSpec | None) -> MetricContainer | None:
    """Return the container without its resources, which change no verdict."""
    if asked is None:
        return None
    return MetricContainer(
        image=asked.image, command=asked.command, args=asked.args, at_least=asked.at_least, at_most=asked.at_most
    )


def _auto_keep(precision: PrecisionSpec, agreement: float | None) -> bool | AutoKeep:
    asked = precision.auto_keep
    if asked is None or precision.calibration is None:
        return asked is not None
    return AutoKeep(
        budget=asked.budget,
        max_nodes=asked.max_nodes,
        timeout_seconds=float(asked.timeout_seconds),
        agreement=agreement,
    )


def _calibration(asked: CalibrationSpec | None) -> Calibration | None:
    return (
        None
        if asked is None
        else Calibration(
            source=asked.source,
            digest=asked.digest,
            method=asked.method,
            percentile=asked.percentile,
            max_samples=asked.max_samples,
            images=_images(asked.images),
            held_out=asked.held_out,
        )
    )


def _images(asked: ImageReadingSpec | None) -> ImageReading | None:
    if asked is None:
        return None
    size = None if asked.size is None else (asked.size[0], asked.size[1])
    return ImageReading(
        input=asked.input, channels=asked.channels, size=size, mean=asked.mean, std=asked.std, scale=asked.scale
    )


def _value_range(values: ValueRangeSpec | None) -> ValueRange | None:
    return None if values is None else ValueRange(min=values.min, opt=values.opt, max=values.max)


def _input_values(values: InputValuesSpec) -> InputValues:
    pair = None if values.range is None else (values.range[0], values.range[1])
    return InputValues(range=pair, constant=values.constant, npz=values.npz)
