"""Puts the weights of another model into an engine of the same structure, which takes seconds instead of a build.

    plan ──deserialise──> engine ──parser refitter──> every weight of the model by name ──refit──> serialise ──> plan

The engine must have been built refittable. Weights that the library folded into others during the build cannot be
replaced. The library reports them, and the caller builds.
"""

from pathlib import Path
from typing import Any

from enginesmith_contract.errors import BuildError
from enginesmith_runtime.engines.nvinfer.inspect import deserialise_plan
from enginesmith_runtime.engines.nvinfer.messages import list_reasons

__all__ = ["refit_plan"]

_SHOWN_NAMES = 5


def refit_plan(module: Any, log: Any, base: Path, model: Path, target: Path) -> None:
    """Write the plan `base` with the weights of `model` to `target`. A CUDA context must be current.

    Args:
        module: The library. The plan's plugins must be loaded.
        log: Logger of the library.
        base: Refittable plan of this version of the library, built on this GPU product.
        model: ONNX file of the same structure. External weights are in the same folder.
        target: File that receives the plan.

    Raises:
        BuildError: `RefitRefused` with the library's error and the missing weights.
    """
    engine = deserialise_plan(module, log, base, host_code=False)
    if not engine.refittable:
        raise _refused(log, "the engine was not built to be refitted")
    refitter = module.Refitter(engine, log)
    parser = module.OnnxParserRefitter(refitter, log)
    if not parser.refit_from_file(str(model)):
        raise _refused(log, *_parser_errors(parser), *_missing(refitter))
    if not refitter.refit_cuda_engine():
        raise _refused(log, *_missing(refitter))
    target.write_bytes(memoryview(_serialise(module, engine, log)))


def _serialise(module: Any, engine: Any, log: Any) -> Any:
    config = engine.create_serialization_config()
    # Since 10.14 a plan states whether it can be refitted again. An engine in memory always can.
    flag = getattr(module.SerializationFlag, "INCLUDE_REFIT", None)
    if flag is not None:
        config.set_flag(flag)
    plan = engine.serialize_with_config(config)
    if plan is None:
        raise _refused(log, "the refitted engine cannot be serialised")
    return plan


def _parser_errors(parser: Any) -> list[str]:
    return [str(parser.get_error(index).desc()).strip() for index in range(parser.num_errors)]


def _missing(refitter: Any) -> list[str]:
    names = sorted(str(name) for name in refitter.get_missing_weights())
    if not names:
        return []
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return [f"weights are missing: {', '.join(names[:_SHOWN_NAMES])}{more}"]


def _refused(log: Any, *found: str) -> BuildError:
    return BuildError(
        "the engine cannot be refitted",
        why=" | ".join((*found, *list_reasons(log.errors))) or "the library gave no reason",
        remedy="build it",
        reason="RefitRefused",
    )
