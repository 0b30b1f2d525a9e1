"""Inspects the engine of a build: its layers, as the library's report and as counts, and its memory."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import JsonValue

from enginesmith_contract.errors import BuildError, BuildOutOfMemoryError
from enginesmith_runtime.engines.nvinfer.messages import Translation, create_logger, list_reasons, translate

__all__ = ["INSPECTOR_FILE", "DeviceMemory", "Inspection", "deserialise_plan", "inspect_plan", "summarise_layers"]

INSPECTOR_FILE: Final = "inspector.json"

# TensorRT writes datatypes in different spellings into descriptions of memory formats.
_DATATYPE: Final = re.compile(r"\b(bfloat16|bf16|fp\d+|u?int\d+|bool|half|float|e8m0)\b", re.IGNORECASE)
_SPELLINGS: Final = {"BFLOAT16": "BF16", "HALF": "FP16", "FLOAT": "FP32"}
_UNKNOWN: Final = "unknown"


class DeviceMemory(NamedTuple):
    """Bytes of a device's memory."""

    free: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Facts about a deserialised plan.

    Attributes:
        summary: Counts of layers, precisions and bytes for the manifest.
        context_bytes: Device memory of one execution context for each profile of the plan.
        memory: Memory of the device while the engine is loaded and has no context.
    """

    summary: Mapping[str, JsonValue]
    context_bytes: tuple[int, ...]
    memory: DeviceMemory


def deserialise_plan(module: Any, log: Any, plan: Path, *, host_code: bool) -> Any:
    """Return the engine of a plan that this library has built. The engine keeps its Runtime alive.

    Args:
        module: The library.
        log: Logger of the library.
        plan: File of the plan.
        host_code: Whether the plan contains host code, as version-compatible plans do.

    Raises:
        BuildError: The library does not load it.
        BuildOutOfMemoryError: There is not enough memory for it.
    """
    engine = None
    # If no Runtime can be created, pybind raises its own error for a constructor that returned nothing.
    with suppress(TypeError, RuntimeError):
        runtime = module.Runtime(log)
        if host_code:
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is not None:
        return engine
    known = translate(log.errors, Translation("EngineUnreadable", "try another version of the library"))
    kind = BuildOutOfMemoryError if known.reason == "OutOfMemory" else BuildError
    raise kind(
        f"{module.__name__} does not load an engine that it has built",
        where=plan.name,
        why=" | ".join(list_reasons(log.errors)) or "it gave no reason",
        remedy=known.remedy,
        reason=known.reason,
    )


def inspect_plan(
    module: Any,
    plan: Path,
    report: Path,
    *,
    host_code: bool,
    device_memory: Callable[[], tuple[int, int]],
) -> Inspection:
    """Deserialise a plan and inspect it; needs a current CUDA context.

    Args:
        module: The library.
        plan: File of the plan.
        report: File for the full report of the library as JSON, which can have megabytes.
        host_code: Whether the plan contains host code.
        device_memory: Function that returns the free and the total bytes of the device.

    Raises:
        BuildError: The library does not load the plan.
    """
    log = create_logger(module)
    engine = deserialise_plan(module, log, plan, host_code=host_code)
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(module.LayerInformationFormat.JSON)
    report.write_text(text, encoding="utf-8")
    context_bytes = _list_context_bytes(engine)
    summary = summarise_layers(text) | {"contextBytes": list(context_bytes)} | _weigh(module, engine)
    return Inspection(summary=summary, context_bytes=context_bytes, memory=DeviceMemory(*device_memory()))


def summarise_layers(text: str) -> dict[str, JsonValue]:
    """Return counts from an inspector's report in the format of TensorRT 10.x or 11.x.

    A layer's precision is the datatype of its first output. TensorRT 10 has format and datatype in one text ("Row major
    linear FP16 format (kLINEAR)"), and 11 has separate fields.
    """
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):  # some versions print trailing commas for empty engines
        return {}
    detailed = [layer for layer in layers if isinstance(layer, dict)]
    types = Counter(str(layer.get("LayerType", _UNKNOWN)) for layer in detailed)
    precisions = Counter(_precision(layer) for layer in detailed)
    return {
        "layers": len(layers),
        "layerTypes": dict(sorted(types.items())),
        "layerPrecisions": dict(sorted(precisions.items())),
    }


def _precision(layer: Mapping[str, Any]) -> str:
    first: Mapping[str, Any] = next(iter(layer.get("Outputs", [])), {})
    described = first.get("Datatype") or first.get("Format/Datatype") or ""
    found = _DATATYPE.search(str(described))
    if found is None:
        return _UNKNOWN
    name = found[0].upper()
    return _SPELLINGS.get(name, name)


def _list_context_bytes(engine: Any) -> tuple[int, ...]:
    # TensorRT 11 does not have the older name, and the newer one was added in 10.1.
    ask = getattr(engine, "get_device_memory_size_for_profile_v2", None) or engine.get_device_memory_size_for_profile
    return tuple(int(ask(index)) for index in range(engine.num_optimization_profiles))


def _weigh(module: Any, engine: Any) -> dict[str, JsonValue]:
    """Return the bytes of the weights, if this version of the library reports them."""
    found: dict[str, JsonValue] = {"streamableWeightsBytes": int(getattr(engine, "streamable_weights_size", 0))}
    statistic = getattr(getattr(module, "EngineStat", None), "TOTAL_WEIGHTS_SIZE", None)  # since 10.14
    if statistic is not None:
        found["weightsBytes"] = int(engine.get_engine_stat(statistic))
    return found
