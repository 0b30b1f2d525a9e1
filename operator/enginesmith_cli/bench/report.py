"""The report of the measurements, as text and as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from pydantic.alias_generators import to_camel

from enginesmith_cli.bench.search import AGAIN, Found, Trial
from enginesmith_cli.bench.wanted import Objective
from enginesmith_cli.tables import table_lines

__all__ = ["notes", "page", "report_document"]

_BUSY: Final = 0.85
"""From this load on, a client process limits the rate: the rest of its time goes to the system and to waiting."""
_HEAD: Final = ("SETTINGS", "REQUESTS/S", "P50 MS", "P99 MS", "CPU US/REQUEST", "CLIENT", "NOTE")


def page(found: Found, target: str, objective: Objective) -> Iterator[str]:
    """Yield the lines of the table, the notes and the recommendation."""
    yield from table_lines(_HEAD, [_row(trial) for trial in found.trials])
    yield ""
    for note in notes(found.trials):
        yield f"note  {note}"
    if not found.settings.document(target):
        yield "recommended  the settings of the file; none was better twice"
        return
    what = "requests per second" if objective is Objective.THROUGHPUT else "p99 latency"
    yield f"recommended  {found.settings.label}  ({what}: {_times(found.gain)} better than with the file's settings)"
    yield ""
    yield from found.settings.yaml(target).splitlines()


def notes(trials: Sequence[Trial]) -> Iterator[str]:
    """Yield notes that a reader needs to understand these figures."""
    if any(trial.measured is not None and trial.measured.client_load >= _BUSY for trial in trials):
        yield (
            "a client process was busy all the time in the rows marked `busy`: the client limits these rates, and the "
            "server can do more. Use more client processes (--clients), on a machine with free processors"
        )
    refused = next((trial for trial in trials if trial.measured is not None and trial.measured.refused), None)
    if refused is not None and refused.measured is not None:
        yield (
            f"settings with refused requests are not recommended; the first refusal: {refused.measured.refusal}. With "
            "RESOURCE_EXHAUSTED, raise serving.maxQueued or lower --concurrency"
        )
    yield "client and server share this machine's processors, so a client on another machine sees higher rates"


def report_document(found: Found, target: str, about: Mapping[str, object]) -> dict[str, object]:
    """Return all of it as one JSON document; `about` goes first."""
    return {
        **about,
        "trials": [
            {
                "dimension": trial.dimension,
                "settings": _settings(trial),
                **({"failure": trial.failure} if trial.failure else {}),
                **(_camel(asdict(trial.measured)) if trial.measured is not None else {}),
            }
            for trial in found.trials
        ],
        "notes": list(notes(found.trials)),
        "recommendation": {"gain": round(found.gain, 3), "document": found.settings.document(target)},
    }


def _settings(trial: Trial) -> dict[str, object]:
    return {"serving": dict(trial.settings.serving), "backendOptions": dict(trial.settings.backend_options)}


def _row(trial: Trial) -> tuple[str, ...]:
    again = AGAIN if trial.dimension == AGAIN else ""
    found = trial.measured
    if found is None:
        return trial.settings.label, "-", "-", "-", "-", "-", trial.failure
    said = [again, f"{found.refused} refused" if found.refused else "", "busy" if found.client_load >= _BUSY else ""]
    return (
        trial.settings.label,
        f"{found.requests_per_second:.1f}",
        f"{found.p50_ms:.2f}",
        f"{found.p99_ms:.2f}",
        f"{found.cpu_us:.0f}",
        f"{found.client_load:.0%}",
        ", ".join(word for word in said if word),
    )


def _times(gain: float) -> str:
    return "infinitely" if gain == float("inf") else f"{gain:.2f} times"


def _camel(fields: Mapping[str, object]) -> dict[str, object]:
    return {to_camel(name): round(value, 3) if isinstance(value, float) else value for name, value in fields.items()}
