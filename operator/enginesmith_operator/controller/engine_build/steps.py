"""The steps of a build's pod: the builder alone, or build, metric and verdict where a user's metric judges. Pure."""

from typing import Final

from enginesmith_contract.text import one_line
from enginesmith_operator.api.engine_build import BuildFailure, EngineBuild
from enginesmith_operator.controller.shared.conditions import bounded_line
from enginesmith_operator.controller.shared.pod_facts import ContainerFacts, Ending, PodFacts
from enginesmith_operator.objects.build_job import BUILD_CONTAINER
from enginesmith_operator.objects.metric_steps import METRIC_CONTAINER, VERDICT_CONTAINER

__all__ = ["LONGEST_LOG", "current_step", "last_step", "metric_failure"]

LONGEST_LOG: Final = 8192
_STEPS: Final = (BUILD_CONTAINER, METRIC_CONTAINER, VERDICT_CONTAINER)
_GATE_FAILED: Final = "VerificationFailed"
_REMEDY: Final = "correct the container of spec.verification.metricContainer"
_MEMORY_REMEDY: Final = "raise spec.verification.metricContainer.resources.limits.memory"


def last_step(build: EngineBuild) -> str:
    """Return the name of the container that ends with the result."""
    return BUILD_CONTAINER if build.spec.request.verification.metric_container is None else VERDICT_CONTAINER


def current_step(pod: PodFacts) -> ContainerFacts | None:
    """Return the first step that has not succeeded, else the last one; None: the pod has no container statuses."""
    steps = [one for name in _STEPS if (one := pod.container(name)) is not None]
    left = [one for one in steps if one.ending is None or one.ending.exit_code]
    return next(iter([*left, *reversed(steps)]), None)


def metric_failure(step: ContainerFacts | None, log: tuple[str, ...]) -> BuildFailure | None:
    """Return the failure of a metric that ended without a verdict: the engine is refused; None: it is another step."""
    ending = step.latest_ending if step is not None and step.name == METRIC_CONTAINER else None
    if ending is None:
        return None
    message = bounded_line(_sentence(ending, log[-1] if log else ""))
    log_tail = "\n".join(log)[-LONGEST_LOG:]
    return BuildFailure(reason=_GATE_FAILED, message=message, exit_code=ending.exit_code, log_tail=log_tail)


def _sentence(ending: Ending, last_line: str) -> str:
    """Return how a metric ended, with the last line of its log."""
    if ending.out_of_memory:
        return f"the user's metric was killed because it ran out of memory, so the engine is refused; {_MEMORY_REMEDY}"
    if ending.not_started:
        return f"the user's metric cannot be started, so the engine is refused: {ending.not_started}; {_REMEDY}"
    lines = [one_line(line) for line in ending.message.splitlines() if line.strip()]
    said = one_line(last_line) or next(reversed(lines), "it said nothing")
    return f"the user's metric ended with exit code {ending.exit_code}, so the engine is refused: {said}; {_REMEDY}"
