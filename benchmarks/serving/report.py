"""The table, the ratios, the record and the picture of one run."""

import math
from collections.abc import Callable, Iterator

from benchmarks.measure import spread, write_record
from benchmarks.serving.client import Row, Sample
from benchmarks.serving.picture import write_picture
from benchmarks.serving.results import BATCHED, GOALS, LOOP_BATCH, Goal, Results, median

__all__ = ["print_tables", "report"]

_COLUMNS = ("server", "requests/s", "(min to max)", "p50 ms", "p99 ms", "server CPU us", "memory MB", "not bitwise")
_PICTURED = (Row(model="mlp", in_flight=8), Row(model="mlp", in_flight=32))


def report(results: Results, *, keep: bool) -> None:
    """Print the ratios and what went wrong; with `keep`, write the record and the picture."""
    for line in (*_ratios(results), *_notes(results)):
        print(line)
    if keep:
        write_record("serving", _figures(results), show=False)
        write_picture(results, _PICTURED)


def print_tables(results: Results, model: str) -> None:
    """Print a table for each row of a model."""
    print("\n".join(_tables(results, model)), flush=True)


def _tables(results: Results, model: str) -> Iterator[str]:
    for row, by_server in results.samples.items():
        if row.model != model:
            continue
        cells = [_COLUMNS, *(_cells(server, samples) for server, samples in by_server.items())]
        widths = [max(len(line[column]) for line in cells) for column in range(len(_COLUMNS))]
        yield f"\n{row}"
        for line in cells:
            first, *others = (
                text.ljust(width) if index == 0 else text.rjust(width)
                for index, (text, width) in enumerate(zip(line, widths, strict=True))
            )
            yield "  ".join([first, *others]).rstrip()
    if results.loop and model == BATCHED:
        yield f"\nbare loop of {BATCHED} at batch {LOOP_BATCH}: {median(results.loop):,.0f} inferences/s"


def _cells(server: str, samples: list[Sample]) -> tuple[str, ...]:
    rates = [sample.rate for sample in samples]

    def middle(of: Callable[[Sample], float]) -> float:
        return median([of(sample) for sample in samples])

    return (
        server,
        f"{median(rates):,.0f}",
        f"({min(rates):,.0f} to {max(rates):,.0f})",
        f"{middle(lambda sample: sample.p50_ms):.2f}",
        f"{middle(lambda sample: sample.p99_ms):.2f}",
        f"{middle(lambda sample: sample.cpu_us):,.0f}",
        f"{middle(lambda sample: sample.memory / 1e6):,.0f}",
        str(sum(sample.close for sample in samples)),
    )


def _ratios(results: Results) -> Iterator[str]:
    yield "\nratios, medians over the rounds"
    width = max(len(goal.what) for goal in GOALS)
    for goal in GOALS:
        value = median(goal.values(results))
        verdict = "not measured" if math.isnan(value) else ("met" if goal.met(value) else "NOT MET")
        given = "-" if math.isnan(value) else f"{value:.2f}"
        yield f"{goal.what.ljust(width)}  {given:>7}  {_bound(goal):>12}  {verdict}"


def _bound(goal: Goal) -> str:
    return f"{'at most' if goal.most else 'at least'} {goal.bound:g}"


def _notes(results: Results) -> Iterator[str]:
    if results.missing:
        yield "\nnot measured"
        for who, why in results.missing.items():
            yield f"{who}: {why}"
    if results.faults:
        yield "\nFAULTS"
        yield from results.faults


def _figures(results: Results) -> dict[str, object]:
    rows = {
        str(row): {
            server: {
                "requestsPerSecond": spread([sample.rate for sample in samples]),
                "p50Ms": spread([sample.p50_ms for sample in samples]),
                "p99Ms": spread([sample.p99_ms for sample in samples]),
                "serverCpuMicroseconds": spread([sample.cpu_us for sample in samples]),
                "memoryMB": spread([round(sample.memory / 1e6, 1) for sample in samples]),
                "notBitwise": sum(sample.close for sample in samples),
            }
            for server, samples in by_server.items()
        }
        for row, by_server in results.samples.items()
    }
    ratios = {
        goal.what: {**spread(values), "bound": _bound(goal), "met": goal.met(median(values))}
        for goal in GOALS
        if (values := goal.values(results))
    }
    loop = {"bareLoopInferencesPerSecond": spread(results.loop)} if results.loop else {}
    return {"rows": rows, **loop, "ratios": ratios, "notMeasured": results.missing, "faults": results.faults}
