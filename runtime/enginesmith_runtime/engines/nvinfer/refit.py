"""Another model's weights in an engine of the same structure: seconds in place of a build.

    plan ──deserialise──> engine ──parser refitter──> every weight of the model by name ──refit──> serialise ──> plan

The engine must have been built refittable. Weights that the library folded into others when it built are not there to
be replaced; then it says so, and the caller builds.
"""

from pathlib import Path
from typing import Any

from enginesmith_contract.errors import BuildError
from enginesmith_runtime.engines.nvinfer.inspect import deserialise_plan
from enginesmith_runtime.engines.nvinfer.messages import list_reasons

__all__ = ["refit_plan"]

_SHOWN_NAMES = 5


def refit_plan(module: Any, log: Any, base: Path, model: Path, target: Path) -> None:
    """Write to `target` the plan `base` with the weights of `model`; needs a current CUDA context.

    Args:
        module: the library; the plan's plugins are loaded.
        log: a logger of the library.
        base: a refittable plan of this version of the library, built on this kind of GPU.
        model: an ONNX file of the same structure; external weights are in the same folder.
        target: receives the plan.

    Raises:
        BuildError: `RefitRefused`, with the library's words and the weights that are missing.
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
    # Since 10.14 a plan says whether it may be refitted again; the engine that was built always may.
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
