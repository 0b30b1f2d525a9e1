"""Session options of ONNX Runtime, from a target's `backendOptions`."""

from collections.abc import Callable, Mapping
from typing import Any

from enginesmith_contract.backend_options import PROVIDER_PREFIX, check_option, known_options
from enginesmith_contract.backends import Backend
from enginesmith_contract.providers import Provider
from enginesmith_runtime.engines.option_errors import option_refused
from enginesmith_runtime.local_files.cpus import count_usable_cpus
from enginesmith_runtime.onnx_graphs.integer_sums import add_in_32_bits

__all__ = ["provider_options", "session_options"]


def session_options(runtime: Any, options: Mapping[str, str], *, instances: int = 1, cpus: int | None = None) -> Any:
    """Return SessionOptions for serving.

    Args:
        runtime: the onnxruntime module.
        options: `intraOpThreads`, `interOpThreads`, `executionMode` ("sequential" or "parallel"), `memoryPattern`,
            `cpuArena`, `spinning` ("true" or "false"), and `provider.<name>` for the provider's own options.
        instances: Number of inferences that run at the same time in the session.
        cpus: Number of CPUs that they share; None for those that this process may use.

    Raises:
        SpecError: An option is unknown or has an invalid value.
    """
    result = runtime.SessionOptions()
    result.log_severity_level = 3
    result.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    add_in_32_bits(result)
    # All instances share the session's threads, and each instance adds its own thread. The sum is one for each CPU.
    result.intra_op_num_threads = max(1, (count_usable_cpus() if cpus is None else cpus) - instances + 1)
    if instances > 1:
        # A thread that spins after its part of a run would take CPU time from another instance.
        _set_spinning(result, wanted=False)
    setters, known = _setters(runtime, result), known_options(Backend.ONNXRUNTIME)
    for name, value in options.items():
        problem = check_option(Backend.ONNXRUNTIME, name, value)
        if problem is not None:
            raise option_refused(name, value, problem)
        if name.startswith(PROVIDER_PREFIX):
            continue
        setters[name](known[name].read(value))
    return result


def provider_options(provider: Provider, options: Mapping[str, str]) -> dict[str, str]:
    """Return the provider's own options: its defaults, overridden by `provider.<name>`."""
    chosen = {
        name.removeprefix(PROVIDER_PREFIX): value for name, value in options.items() if name.startswith(PROVIDER_PREFIX)
    }
    return {**provider.options, **chosen}


def _setters(runtime: Any, options: Any) -> dict[str, Callable[[Any], None]]:
    modes = {
        "sequential": runtime.ExecutionMode.ORT_SEQUENTIAL,
        "parallel": runtime.ExecutionMode.ORT_PARALLEL,
    }

    return {
        "intraOpThreads": lambda value: setattr(options, "intra_op_num_threads", value),
        "interOpThreads": lambda value: setattr(options, "inter_op_num_threads", value),
        "executionMode": lambda value: setattr(options, "execution_mode", modes[value]),
        "memoryPattern": lambda value: setattr(options, "enable_mem_pattern", value),
        "cpuArena": lambda value: setattr(options, "enable_cpu_mem_arena", value),
        "spinning": lambda value: _set_spinning(options, wanted=value),
    }


def _set_spinning(options: Any, *, wanted: bool) -> None:
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(wanted)))
    options.add_session_config_entry("session.inter_op.allow_spinning", str(int(wanted)))
