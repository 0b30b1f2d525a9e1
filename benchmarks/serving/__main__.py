"""Our server next to its peers on this machine: requests a second, latency, processor time and memory, in one table.

Usage: python -m benchmarks.serving [--quick] [--only grpcio,enginesmith] [--only mlp] [--rounds 5] [--seconds 1.5]

Everything that is needed is installed or compiled first, into a cache outside the checkout. One native client drives
all servers in turn, so that a machine that slows down slows all of them, and compares each answer with bare ONNX
Runtime's. The record goes to `benchmarks/records/serving.json`, a picture to `docs/pictures/serving-speed.svg`.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.serving.client import Row, prepared
from benchmarks.serving.environment import NotAvailableError, build_native
from benchmarks.serving.models import MODELS
from benchmarks.serving.report import print_tables, report
from benchmarks.serving.results import BATCHED, LOOP_BATCH, Results
from benchmarks.serving.servers import SERVERS, Server, running

_QUICK_MODELS = ("mlp", BATCHED, "tensor")
_ROWS = (
    *(Row(model="mlp", in_flight=count) for count in (1, 8, 32)),
    Row(model="mlp", in_flight=256, connections=256),
    Row(model=BATCHED, in_flight=1),
    Row(model=BATCHED, in_flight=8),
    *(Row(model="tensor", in_flight=count, shared=shared) for shared in (False, True) for count in (1, 4)),
    *(Row(model=model, in_flight=count) for model in ("cls", "rec", "det") for count in (1, 2)),
)


def main() -> None:
    """Measure, print, keep the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ours, plain grpcio and the native servers; small rows")
    parser.add_argument("--only", action="append", default=[], help="names of servers, or of models, with commas")
    parser.add_argument("--rounds", type=int, default=0, help="default: 5, or 3 with --quick")
    parser.add_argument("--seconds", type=float, default=0.0, help="of each run; default: 1.5, or 1 with --quick")
    parser.add_argument("--no-record", action="store_true", help="only print")
    arguments = parser.parse_args()
    rounds, seconds = (
        arguments.rounds or (3 if arguments.quick else 5),
        arguments.seconds or (1.0 if arguments.quick else 1.5),
    )
    named = {name for names in arguments.only for name in names.split(",")}
    unknown = named - {*SERVERS, *MODELS}
    if unknown:
        parser.error(
            f"--only {', '.join(sorted(unknown))}: neither a server ({', '.join(SERVERS)}) nor a model "
            f"({', '.join(MODELS)})"
        )
    quick = arguments.quick
    servers = [
        server
        for server in SERVERS.values()
        if _chosen(server.name, named & set(SERVERS), otherwise=server.quick or not quick)
    ]
    models = [
        name for name in MODELS if _chosen(name, named & set(MODELS), otherwise=name in _QUICK_MODELS or not quick)
    ]
    build_native()
    results = Results()
    with tempfile.TemporaryDirectory() as folder:
        for name in models:
            _measure_model(name, servers, results, Path(folder), rounds=rounds, seconds=seconds)
            print_tables(results, name)
    report(results, keep=not arguments.no_record)
    if results.faults:
        sys.exit(1)


def _chosen(name: str, named: set[str], *, otherwise: bool) -> bool:
    return name in named if named else otherwise


def _measure_model(
    name: str, servers: list[Server], results: Results, folder: Path, *, rounds: int, seconds: float
) -> None:
    work, file = prepared(MODELS[name], folder / name)
    rows = [row for row in _ROWS if row.model == name]
    with contextlib.ExitStack() as stack:
        started: dict[str, tuple[str, int]] = {}
        for server in servers:
            try:
                place = running(server, work, file, folder / name / server.name, batching=name == BATCHED)
                started[server.name] = stack.enter_context(place)
            except (NotAvailableError, RuntimeError) as error:
                results.missing[f"{server.name}, {name}"] = str(error)
                print(f"{server.name} serves no {name}: {error}", file=sys.stderr, flush=True)
        for number in range(rounds):
            for row in rows:
                for server in servers:
                    if server.name in started and server.serves(row):
                        address, pid = started[server.name]
                        sample = work.measure(row, address, pid, seconds, echo=server.echo)
                        results.add(row, server.name, sample)
            if name == BATCHED:
                results.add_loop(_bare_loop(file, work.model.shape, seconds))
            print(f"{name}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)


def _bare_loop(file: Path, shape: tuple[int, ...], seconds: float) -> float:
    command = [sys.executable, "-m", "benchmarks.serving.peers.bare_loop", str(file), str(LOOP_BATCH), str(seconds)]
    return float(subprocess.check_output([*command, *map(str, shape[1:])], text=True))


if __name__ == "__main__":
    main()
