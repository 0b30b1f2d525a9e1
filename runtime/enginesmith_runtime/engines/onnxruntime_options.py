"""Session options of ONNX Runtime, from the words that a target's `backendOptions` may hold."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from enginesmith_contract.errors import SpecError
from enginesmith_contract.providers import Provider
from enginesmith_runtime.engines.cpus import count_usable_cpus

__all__ = ["provider_options", "session_options"]

_PROVIDER_PREFIX: Final = "provider."
_SWITCH: Final = {"true": True, "false": False}


def session_options(runtime: Any, options: Mapping[str, str]) -> Any:  # noqa: ANN401 - the library has no types
    """Return SessionOptions for serving.

    Args:
        runtime: the onnxruntime module.
        options: `intraOpThreads` (default: the CPUs that this process may use), `interOpThreads`, `executionMode`
            ("sequential" or "parallel"), `memoryPattern`, `cpuArena`, `spinning` ("true" or "false"), and
            `provider.<name>` for the provider's own options.

    Raises:
        SpecError: an option is unknown or has a value that it cannot have.
    """
    result = runtime.SessionOptions()
    result.log_severity_level = 3
    result.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    result.intra_op_num_threads = count_usable_cpus()
    setters = _setters(runtime, result)
    for name, value in options.items():
        if name.startswith(_PROVIDER_PREFIX):
            continue
        setter = setters.get(name)
        if setter is None:
            raise _bad_option(name, f"known are {', '.join(setters)} and provider.<name>", "correct the name")
        try:
            setter(value)
        except (KeyError, ValueError) as error:
            raise _bad_option(name, f"{value!r} is no value of it", "correct the value") from error
    return result


def provider_options(provider: Provider, options: Mapping[str, str]) -> dict[str, str]:
    """Return the provider's own options: its defaults, overridden by `provider.<name>`."""
    chosen = {
        name.removeprefix(_PROVIDER_PREFIX): value
        for name, value in options.items()
        if name.startswith(_PROVIDER_PREFIX)
    }
    return {**provider.options, **chosen}


def _setters(runtime: Any, options: Any) -> dict[str, Callable[[str], None]]:  # noqa: ANN401 - untyped library
    modes = {
        "sequential": runtime.ExecutionMode.ORT_SEQUENTIAL,
        "parallel": runtime.ExecutionMode.ORT_PARALLEL,
    }

    def set_spinning(value: str) -> None:
        wanted = "1" if _SWITCH[value] else "0"
        options.add_session_config_entry("session.intra_op.allow_spinning", wanted)
        options.add_session_config_entry("session.inter_op.allow_spinning", wanted)

    return {
        "intraOpThreads": lambda value: setattr(options, "intra_op_num_threads", _count(value)),
        "interOpThreads": lambda value: setattr(options, "inter_op_num_threads", _count(value)),
        "executionMode": lambda value: setattr(options, "execution_mode", modes[value]),
        "memoryPattern": lambda value: setattr(options, "enable_mem_pattern", _SWITCH[value]),
        "cpuArena": lambda value: setattr(options, "enable_cpu_mem_arena", _SWITCH[value]),
        "spinning": set_spinning,
    }


def _count(value: str) -> int:
    number = int(value)
    if not 1 <= number <= 1024:  # noqa: PLR2004 - more threads than any machine has is a slip of the keyboard
        raise ValueError(value)
    return number


def _bad_option(name: str, why: str, remedy: str) -> SpecError:
    return SpecError(
        "no such option of the onnxruntime backend" if "known" in why else "the option cannot be set so",
        where=f"backendOptions.{name}",
        why=why,
        remedy=remedy,
        reason="BackendOptionInvalid",
    )
