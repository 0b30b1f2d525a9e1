"""The settings to try: one dimension after another, each starting from the best settings so far.

A dimension gets the best settings so far, since the right number of threads depends on the number of instances.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from enginesmith_cli.bench.settings import Settings
from enginesmith_contract.backend_options import known_options
from enginesmith_contract.backends import Backend
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.serving import ServingSpec

__all__ = ["Place", "candidates"]

_THREADS: Final = "intraOpThreads"
_SPINNING: Final = "spinning"
_SPIN: Final = "spin"
_GPU_INSTANCES: Final = (1, 2, 3, 4)
_MOST_CPU_INSTANCES: Final = 8
_QUEUE_DELAYS: Final = ("0s", "1ms", "5ms")
_FRONT_ENDS: Final = (0, 1, 2, 4)


@dataclass(frozen=True, kw_only=True)
class Place:
    """What is measured, and on what.

    Attributes:
        target: of the document, by name.
        joins: whether the preparation proved that requests of this model may run as one.
        cpus: that this process may use.
    """

    engine: InferenceEngine
    target: str
    backend: Backend
    joins: bool
    cpus: int

    @property
    def options(self) -> Mapping[str, str]:
        """The target's `backendOptions` in the document."""
        return next(one.backend_options for one in self.engine.spec.targets if one.name == self.target)

    @property
    def has_threads(self) -> bool:
        """Whether the backend computes on threads of the CPU that can be counted."""
        return _THREADS in known_options(self.backend)


def candidates(dimension: str, place: Place, best: Settings) -> tuple[Settings, ...]:
    """Return the settings to compare with `best` in a dimension; none where it changes nothing here."""
    stated = place.engine.spec.serving.model_dump(by_alias=True, exclude_unset=True)
    current = Settings(serving={**stated, **best.serving}, backend_options={**place.options, **best.backend_options})
    before = _completed(current.serving)
    return tuple(
        best.with_changes(change)
        for change in _CHANGES[dimension](place, current)
        if _completed({**current.serving, **change.serving}) != before
        or {**current.backend_options, **change.backend_options} != current.backend_options
    )


def _completed(serving: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of `spec.serving`, with the defaults of groups such as `batching`, to compare them."""
    defaults = ServingSpec().model_dump(by_alias=True)
    groups = {name: value | _fields(serving.get(name)) for name, value in defaults.items() if isinstance(value, dict)}
    return {**defaults, **serving, **groups}


def _fields(group: object) -> dict[str, object]:
    return dict(group) if isinstance(group, Mapping) else {}


def _instances(place: Place, current: Settings) -> tuple[Settings, ...]:
    if not place.has_threads:
        return tuple(Settings(serving={"instances": count}) for count in _GPU_INSTANCES)
    most = min(place.cpus, _MOST_CPU_INSTANCES)
    # Threads that the document states would be too many for more instances; the default follows their number.
    states_threads = _THREADS in current.backend_options
    return tuple(
        Settings(
            serving={"instances": count},
            backend_options={_THREADS: str(max(1, place.cpus // count))} if states_threads else {},
        )
        for count in (1, 2, 4, 8)
        if count <= most
    )


def _threads(place: Place, current: Settings) -> tuple[Settings, ...]:
    if not place.has_threads:
        has_spin = _SPIN in known_options(place.backend)
        return tuple(Settings(backend_options={_SPIN: value}) for value in ("true", "false") if has_spin)
    instances = int(str(_completed(current.serving)["instances"]))
    share = max(1, place.cpus // instances)
    counts = sorted({1, max(1, share // 2), share})
    # The opposite of the default, with which the threads of a single instance spin while they wait.
    spinning = Settings(backend_options={_SPINNING: "false" if instances == 1 else "true"})
    return (*(Settings(backend_options={_THREADS: str(count)}) for count in counts), spinning)


def _batching(place: Place, current: Settings) -> tuple[Settings, ...]:
    if not place.joins:
        return ()
    stated = _fields(current.serving.get("batching"))
    others = {**stated, "enabled": True} if "enabled" in stated else stated
    delays = (Settings(serving={"batching": {**others, "maxQueueDelay": delay}}) for delay in _QUEUE_DELAYS)
    return (Settings(serving={"batching": {"enabled": False}}), *delays)


def _front_ends(place: Place, _current: Settings) -> tuple[Settings, ...]:
    return tuple(Settings(serving={"frontEnds": count}) for count in _FRONT_ENDS if count < max(place.cpus, 2))


_CHANGES: Final[Mapping[str, Callable[[Place, Settings], tuple[Settings, ...]]]] = {
    "instances": _instances,
    "threads": _threads,
    "batching": _batching,
    "frontEnds": _front_ends,
}
