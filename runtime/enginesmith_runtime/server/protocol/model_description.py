"""Responses that describe a model: ModelMetadata, ModelConfig and ModelStatistics."""

import json
from typing import cast

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.profiles import ShapeRange, ValueRange
from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_contract.protos import model_config_pb2 as config
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.server.model import LoadedModel
from enginesmith_runtime.server.protocol.tensor_encoding import string_parameters
from enginesmith_runtime.server.statistics import Snapshot, Total

__all__ = ["describe_config", "describe_metadata", "describe_statistics"]


def describe_metadata(model: LoadedModel) -> pb.ModelMetadataResponse:
    """Return the model's tensors, the range of each open dimension and the origin of the engine."""
    manifest = model.manifest
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=[model.version],
        platform=traits(manifest.toolchain.backend).triton_platform,
        inputs=[_tensor(spec, _range_parameters(model, spec)) for spec in manifest.inputs],
        outputs=[_tensor(spec, {}) for spec in manifest.outputs],
        parameters=string_parameters(
            {
                "engine": manifest.engine_key,
                "target": model.target,
                "digest": manifest.engine_digest,
                "toolchain": f"{manifest.toolchain.backend} {manifest.toolchain.version}",
                "verification": manifest.verification.status.value,
            }
        ),
    )


def describe_config(model: LoadedModel) -> config.ModelConfig:
    """Return the part of the description that Triton's ModelConfig can express."""
    manifest, batched = model.manifest, model.max_batch_size > 0
    on_gpu = model.engine.device_memory is not None
    described = config.ModelConfig(
        name=model.name,
        platform=traits(manifest.toolchain.backend).triton_platform,
        backend=traits(manifest.toolchain.backend).triton_backend,
        version_policy=config.ModelVersionPolicy(latest=config.ModelVersionPolicy.Latest(num_versions=1)),
        max_batch_size=model.max_batch_size,
        input=[
            config.ModelInput(name=spec.name, data_type=_data_type(spec.dtype), dims=_dims(spec, batched=batched))
            for spec in manifest.inputs
        ],
        output=[
            config.ModelOutput(name=spec.name, data_type=_data_type(spec.dtype), dims=_dims(spec, batched=batched))
            for spec in manifest.outputs
        ],
        instance_group=[
            config.ModelInstanceGroup(
                name=model.name,
                count=model.pool.size,
                kind=config.ModelInstanceGroup.KIND_GPU if on_gpu else config.ModelInstanceGroup.KIND_CPU,
                # A server uses the first visible GPU, and a pod has one.
                gpus=[0] if on_gpu else [],
                profile=[profile.name for profile in model.profiles.profiles],
            )
        ],
        default_model_filename=manifest.files[0].path if manifest.files else "",
        model_transaction_policy=config.ModelTransactionPolicy(decoupled=False),
        response_cache=None if model.cache is None else config.ModelResponseCache(enable=True),
    )
    if not model.why_not_joined:
        described.dynamic_batching.CopyFrom(_dynamic_batching(model))
    for name, value in (("engine", manifest.engine_key), ("target", model.target)):
        described.parameters[name].string_value = value
    return described


def _dynamic_batching(model: LoadedModel) -> config.ModelDynamicBatching:
    return config.ModelDynamicBatching(
        preferred_batch_size=model.batching.preferred_batch_sizes,
        max_queue_delay_microseconds=round(model.batching.max_queue_delay_seconds * 1_000_000),
        priority_levels=model.queue.priority_levels or 0,
        default_priority_level=model.priority(0),
        default_queue_policy=config.ModelQueuePolicy(
            default_timeout_microseconds=round((model.queue.timeout_seconds or 0) * 1_000_000),
            allow_timeout_override=True,
            max_queue_size=model.pool.queue_limit,
        ),
    )


def describe_statistics(model: LoadedModel) -> pb.ModelStatistics:
    """Return the counters since the start."""
    counters = model.statistics.read()
    batches = dict(counters.batches)
    memory = model.manifest.device_memory_bytes
    return pb.ModelStatistics(
        name=model.name,
        version=model.version,
        last_inference=counters.last_inference_ms,
        inference_count=counters.inference_count,
        execution_count=counters.execution_count,
        inference_stats=_inference_statistics(counters),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=size,
                compute_input=_duration(totals.compute_input),
                compute_infer=_duration(totals.compute_infer),
                compute_output=_duration(totals.compute_output),
            )
            for size, totals in sorted(batches.items())
        ],
        memory_usage=[pb.MemoryUsage(type="GPU", id=0, byte_size=memory * model.pool.size)] if memory else [],
    )


def _inference_statistics(counters: Snapshot) -> pb.InferStatistics:
    return pb.InferStatistics(
        success=_duration(counters.success),
        fail=_duration(counters.fail),
        queue=_duration(counters.queue),
        compute_input=_duration(counters.compute.compute_input),
        compute_infer=_duration(counters.compute.compute_infer),
        compute_output=_duration(counters.compute.compute_output),
        cache_hit=_duration(counters.cache_hit),
        cache_miss=_duration(counters.cache_miss),
    )


def _duration(total: Total) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=total.count, ns=total.ns)


def _tensor(spec: TensorSpec, parameters: dict[str, str]) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.dtype.value, shape=spec.shape, parameters=string_parameters(parameters)
    )


def _range_parameters(model: LoadedModel, spec: TensorSpec) -> dict[str, str]:
    named = list(zip((one.name for one in model.profiles.profiles), model.profiles.ranges(spec.name), strict=True))
    shapes = {f"profile.{name}": _range_text(accepted) for name, accepted in named} if spec.is_dynamic else {}
    return shapes | {
        f"values.{name}": _range_text(accepted.values) for name, accepted in named if accepted.values is not None
    }


def _range_text(accepted: ShapeRange | ValueRange) -> str:
    return json.dumps({"min": accepted.min, "opt": accepted.opt, "max": accepted.max})


def _dims(spec: TensorSpec, *, batched: bool) -> tuple[int, ...]:
    return spec.shape[1:] if batched else spec.shape


def _data_type(dtype: DType) -> config.DataType:
    name = "TYPE_STRING" if dtype is DType.BYTES else f"TYPE_{dtype.value}"
    return cast("config.DataType", config.DataType.Value(name))
