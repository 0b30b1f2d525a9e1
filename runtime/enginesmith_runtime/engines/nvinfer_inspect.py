"""What the builder made of a network: its engine's layers, in the library's words and in counts."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue

from enginesmith_contract.errors import BuildError
from enginesmith_runtime.engines.nvinfer_messages import create_logger

__all__ = ["INSPECTOR_FILE", "Inspection", "inspect_plan", "summarise_layers"]

INSPECTOR_FILE: Final = "inspector.json"


class Inspection:
    """What a deserialised plan says of itself.

    Attributes:
        summary: layers by type and by output datatype, fit for a manifest.
        device_memory_bytes: what one execution context takes.
    """

    def __init__(self, summary: Mapping[str, JsonValue], device_memory_bytes: int) -> None:
        self.summary = summary
        self.device_memory_bytes = device_memory_bytes


def inspect_plan(module: Any, plan: Path, report: Path, *, host_code: bool) -> Inspection:  # noqa: ANN401 - untyped
    """Deserialise a plan that was just built and write the inspector's report.

    Args:
        module: the library.
        plan: the file.
        report: where the whole report goes, as JSON; it can be megabytes.
        host_code: whether the plan carries host code (version-compatible ones do).

    Raises:
        BuildError: the library does not load what it has built.
    """
    log = create_logger(module)
    runtime = module.Runtime(log)
    if host_code:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise BuildError(
            "the library does not load the engine that it has just built",
            why=" | ".join(log.errors),
            remedy="try another version of the library",
            reason="EngineUnreadable",
        )
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(module.LayerInformationFormat.JSON)
    report.write_text(text, encoding="utf-8")
    return Inspection(summarise_layers(text), _device_memory_bytes(engine))


def summarise_layers(text: str) -> dict[str, JsonValue]:
    """Return counts out of an inspector's report; both the 10.x and the 11.x form are understood.

    TensorRT 10 joins format and datatype in one text ("Row major linear FP16"), 11 has fields of their own.
    """
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):  # some versions print trailing commas for empty engines
        return {}
    detailed = [layer for layer in layers if isinstance(layer, dict)]
    types = Counter(str(layer.get("LayerType", "unknown")) for layer in detailed)
    dtypes = Counter(_dtype(output) for layer in detailed for output in layer.get("Outputs", []))
    return {
        "layers": len(layers),
        "layerTypes": dict(sorted(types.items())),
        "outputDatatypes": dict(sorted(dtypes.items())),
    }


def _dtype(output: Mapping[str, Any]) -> str:
    if "Datatype" in output:
        return str(output["Datatype"])
    words = str(output.get("Format/Datatype", "unknown")).split()
    return words[-1] if words else "unknown"


def _device_memory_bytes(engine: Any) -> int:  # noqa: ANN401 - the library has no types
    # The older name is gone in 11, the newer one came with 10.1.
    size = getattr(engine, "device_memory_size_v2", None)
    return int(engine.device_memory_size if size is None else size)
