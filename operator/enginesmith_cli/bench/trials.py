"""The measurements of one command: a server for each candidate, with progress."""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from enginesmith_cli.bench.candidates import Place, candidates
from enginesmith_cli.bench.measure import Load, drive, running_server
from enginesmith_cli.bench.search import AGAIN, FILE, Found, Measured, Trial, search
from enginesmith_cli.bench.settings import FROM_FILE, Settings
from enginesmith_cli.bench.wanted import Objective
from enginesmith_cli.options import add_home_options, add_server_options
from enginesmith_cli.server_process import serve_request
from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.serve_request import ServeRequest
from enginesmith_runtime.progress import Fact, Reporter

__all__ = ["Trials", "stages"]


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What is measured, and how.

    Attributes:
        engine_key: of the engine that every server loads.
        store: that has it.
        work: a folder for the servers' requests and logs.
        encode: returns the encoded request for the server at an address; called once, on the first server.
    """

    place: Place
    engine_key: str
    store: str
    load: Load
    work: Path
    reporter: Reporter
    encode: Callable[[str], bytes]

    def run(self, dimensions: Sequence[str], objective: Objective) -> Found:
        """Measure the candidates; return the measurements and what is recommended.

        Raises:
            EnginesmithError: the document's own settings cannot be measured.
        """
        numbers: Counter[str] = Counter()

        def measure(dimension: str, settings: Settings) -> Trial:
            numbers[dimension] += 1
            self.reporter.begin(f"{dimension} {numbers[dimension]}", settings.label)
            trial = self._measure(dimension, settings)
            found = trial.measured
            facts: dict[str, Fact] = {"failure": trial.failure} if found is None else _facts(found)
            self.reporter.end(settings=settings.label, **facts)
            return trial

        return search(dimensions, self._propose, measure, objective)

    def _propose(self, dimension: str, best: Settings) -> Sequence[Settings]:
        return candidates(dimension, self.place, best)

    def _measure(self, dimension: str, settings: Settings) -> Trial:
        try:
            with running_server(self._request(settings), self.work) as server:
                message = self.work / "message"
                if not message.exists():
                    message.write_bytes(self.encode(server.address))
                return Trial(dimension=dimension, settings=settings, measured=drive(server, self.load, message))
        except EnginesmithError as error:
            if settings == FROM_FILE:
                raise
            return Trial(dimension=dimension, settings=settings, failure=error.sentence())

    def _request(self, settings: Settings) -> ServeRequest:
        engine = settings.applied_to(self.place.engine, self.place.target)
        request = serve_request([(engine, self.place.target, self.engine_key)], _server_options(self.store))
        return request.model_copy(update={"drain_delay_seconds": 0.0, "grace_seconds": 1.0})


def stages(dimensions: Sequence[str], place: Place) -> dict[str, int]:
    """Return the shares of the progress bar, as far as they are known before anything is measured."""
    counts = {FILE: 1, **{one: len(candidates(one, place, FROM_FILE)) for one in dimensions}, AGAIN: 2}
    return {f"{name} {number}": 1 for name, count in counts.items() for number in range(1, count + 1)}


def _facts(found: Measured) -> dict[str, Fact]:
    return {"requestsPerSecond": found.requests_per_second, "p50Ms": found.p50_ms, "p99Ms": found.p99_ms}


def _server_options(store: str) -> argparse.Namespace:
    """Return the options of a server that says no more than the document, on a free port."""
    parser = argparse.ArgumentParser()
    add_server_options(parser)
    add_home_options(parser)
    return parser.parse_args(["--address", "127.0.0.1:0", "--metrics-address", "none", "--store", store])
