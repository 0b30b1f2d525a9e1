"""What the builder made of a network: its engine's layers, in the library's words and in counts, and its memory."""

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

# TensorRT writes datatypes into descriptions of memory formats, each in its own spelling.
_DATATYPE: Final = re.compile(r"\b(bfloat16|bf16|fp\d+|u?int\d+|bool|half|float|e8m0)\b", re.IGNORECASE)
_SPELLINGS: Final = {"BFLOAT16": "BF16", "HALF": "FP16", "FLOAT": "FP32"}
_UNKNOWN: Final = "unknown"


class DeviceMemory(NamedTuple):
    """Bytes of a device's memory."""

    free: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a deserialised plan says of itself.

    Attributes:
        summary: counts of layers, precisions and bytes, fit for a manifest.
        context_bytes: device memory of one execution context, for each of the plan's profiles.
        memory: of the device while the engine is loaded, without any context.
    """

    summary: Mapping[str, JsonValue]
    context_bytes: tuple[int, ...]
    memory: DeviceMemory


def deserialise_plan(module: Any, log: Any, plan: Path, *, host_code: bool) -> Any:
    """Return the engine of a plan that this library has built; it keeps its Runtime alive.

    Args:
        module: the library.
        log: a logger of the library.
        plan: the file.
        host_code: whether the plan carries host code (version-compatible ones do).

    Raises:
        BuildError: the library does not load it.
        BuildOutOfMemoryError: there is no room for it.
    """
    engine = None
    # Where no Runtime can be made, pybind finds its own words for a constructor that returned nothing.
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
        module: the library.
        plan: the file.
        report: where the library's whole report goes, as JSON; it can be megabytes.
        host_code: whether the plan carries host code.
        device_memory: returns the device's free and all bytes.

    Raises:
        BuildError: the library does not load what it has built.
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
    """Return counts out of an inspector's report; both the 10.x and the 11.x form are understood.

    A layer's precision is the datatype of its first output. TensorRT 10 has format and datatype in one text ("Row major
    linear FP16 format (kLINEAR)"), 11 has fields of their own.
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
    # The older name is gone in 11, the newer one came with 10.1.
    ask = getattr(engine, "get_device_memory_size_for_profile_v2", None) or engine.get_device_memory_size_for_profile
    return tuple(int(ask(index)) for index in range(engine.num_optimization_profiles))


def _weigh(module: Any, engine: Any) -> dict[str, JsonValue]:
    """Return the bytes of the weights, as far as this version of the library tells."""
    found: dict[str, JsonValue] = {"streamableWeightsBytes": int(getattr(engine, "streamable_weights_size", 0))}
    statistic = getattr(getattr(module, "EngineStat", None), "TOTAL_WEIGHTS_SIZE", None)  # since 10.14
    if statistic is not None:
        found["weightsBytes"] = int(engine.get_engine_stat(statistic))
    return found
