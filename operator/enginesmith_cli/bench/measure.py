"""One measurement: a server with the candidate's settings, and clients in processes of their own."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from enginesmith_cli.bench.client import Order, Report
from enginesmith_cli.bench.search import Measured
from enginesmith_contract import environment
from enginesmith_contract.errors import ServeError
from enginesmith_contract.serve_request import ServeRequest
from enginesmith_contract.text import one_line
from enginesmith_runtime.child_processes import kill_group, python_command, start_child

__all__ = ["Load", "RunningServer", "drive", "measured_from", "running_server"]

_START_SECONDS: Final = 600.0
"""Time limit for a server to load and warm up its engine: a large engine on a slow disk takes minutes."""
_STOP_SECONDS: Final = 10.0
_SAID_BYTES: Final = 4096
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PARENT: Final = 1
_TICKS: Final = slice(11, 15)
"""Of /proc/PID/stat behind the program's name: of user and system, of the process and of its children that ended."""

Child = subprocess.Popen[bytes]


class _Process(NamedTuple):
    parent: int
    ticks: int


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the clients do.

    Attributes:
        in_flight: requests, of all clients together.
        clients: processes.
        connections: of all clients together, at least one each.
        warm_up_seconds: before the time measured.
    """

    in_flight: int
    clients: int
    connections: int
    warm_up_seconds: float
    seconds: float
    timeout_seconds: float

    def orders(self, address: str, request: Path) -> Iterator[Order]:
        """Yield each client's order: requests and connections shared out as evenly as can be."""
        for number in range(self.clients):
            yield Order(
                address=address,
                request=str(request),
                in_flight=_share(self.in_flight, self.clients, number),
                connections=max(1, _share(self.connections, self.clients, number)),
                warm_up_seconds=self.warm_up_seconds,
                seconds=self.seconds,
                timeout_seconds=self.timeout_seconds,
            )


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A server with the processes that it started."""

    address: str
    child: Child

    def cpu_seconds(self) -> float:
        """Return the processor time that its processes have taken."""
        processes = dict(filter(None, map(_process, Path("/proc").iterdir())))
        return _ticks_below(self.child.pid, processes) / _TICKS_PER_SECOND


@contextmanager
def running_server(request: ServeRequest, folder: Path) -> Iterator[RunningServer]:
    """Run a server that is ready; it is stopped afterwards.

    Args:
        request: what it serves; port 0.
        folder: for its request and its log.

    Raises:
        ServeError: it ended or did not become ready.
    """
    path, log = folder / "request.json", folder / "server.log"
    path.write_bytes(request.to_json())
    account = os.environ.get(environment.STORE_CREDENTIALS)
    with log.open("wb") as stderr:
        child = start_child(
            python_command("enginesmith_cli.bench.server", str(path)),
            stderr=stderr,
            defaults={environment.STORE_CREDENTIALS: account} if account else None,
        )
    try:
        line = _line(child, _START_SECONDS)
        if not line:
            raise ServeError("the server did not start", why=_last_words(log), reason="ServeFailed")
        yield RunningServer(address=str(json.loads(line)["address"]), child=child)
    finally:
        # Front ends and shared memory are taken down by the server itself.
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(_STOP_SECONDS)
        kill_group(child)


def drive(server: RunningServer, load: Load, request: Path) -> Measured:
    """Send requests for the length of a measurement.

    Args:
        server: that is asked.
        load: of all clients together.
        request: a file with an encoded ModelInferRequest.

    Raises:
        ServeError: a client ended before its time.
    """
    with ExitStack() as stack:
        clients = [stack.enter_context(_client(order)) for order in load.orders(server.address, request)]
        for client in clients:
            _expect(client, load.warm_up_seconds + load.timeout_seconds)
        before = server.cpu_seconds()
        for client in clients:
            _write(client, b"go\n")
        reports = [Report.from_json(_expect(client, load.seconds + load.timeout_seconds)) for client in clients]
        cpu_seconds = server.cpu_seconds() - before
    return measured_from(reports, load.seconds, cpu_seconds)


def measured_from(reports: Sequence[Report], seconds: float, cpu_seconds: float) -> Measured:
    """Return the results of all clients together.

    Args:
        reports: of the clients.
        seconds: that were measured.
        cpu_seconds: processor time of the server.
    """
    latencies = sorted(latency for report in reports for latency in report.latencies_us)
    count = len(latencies)
    return Measured(
        requests_per_second=count / seconds,
        p50_ms=_percentile(latencies, 0.5) / 1e3,
        p99_ms=_percentile(latencies, 0.99) / 1e3,
        cpu_us=cpu_seconds * 1e6 / count if count else 0.0,
        client_load=max(report.cpu_seconds for report in reports) / seconds,
        refused=sum(report.refused for report in reports),
        refusal=next((report.refusal for report in reports if report.refusal), ""),
    )


def _share(total: int, parts: int, number: int) -> int:
    return total // parts + (number < total % parts)


def _percentile(ordered: Sequence[int], part: float) -> float:
    return float(ordered[min(len(ordered) - 1, int(part * len(ordered)))]) if ordered else 0.0


@contextmanager
def _client(order: Order) -> Iterator[Child]:
    child = start_child(python_command("enginesmith_cli.bench.client"), stdin=subprocess.PIPE)
    try:
        _write(child, order.to_json() + b"\n")
        yield child
    finally:
        kill_group(child)
        if child.stdin is not None:
            child.stdin.close()


def _write(child: Child, data: bytes) -> None:
    if child.stdin is not None:
        # A client that has ended is detected when its output is read.
        with suppress(BrokenPipeError):
            child.stdin.write(data)
            child.stdin.flush()


def _expect(client: Child, seconds: float) -> bytes:
    line = _line(client, seconds + _START_SECONDS)
    if not line:
        raise ServeError("a client process ended too early", why=f"exit code {client.poll()}", reason="ServeFailed")
    return line


def _line(child: Child, seconds: float) -> bytes:
    """Return the child's next line; empty where it ended or takes longer than this."""
    if child.stdout is None or not select.select([child.stdout], [], [], seconds)[0]:
        return b""
    return bytes(child.stdout.readline())


def _last_words(log: Path) -> str:
    lines = log.read_bytes()[-_SAID_BYTES:].decode(errors="replace").strip().splitlines()
    said = [line for line in lines if line.startswith("enginesmith: ")] or lines[-1:] or ["it said nothing"]
    return one_line(said[-1].removeprefix("enginesmith: "))


def _process(entry: Path) -> tuple[int, _Process] | None:
    """Return the content of an entry of /proc; None: it is not a process, or the process has just ended."""
    if not entry.name.isdigit():
        return None
    try:
        fields = (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(entry.name), _Process(parent=int(fields[_PARENT]), ticks=sum(map(int, fields[_TICKS])))


def _ticks_below(pid: int, processes: Mapping[int, _Process]) -> int:
    """Return the processor time of a process and of all that it started."""
    children = [child for child, one in processes.items() if one.parent == pid]
    own = processes[pid].ticks if pid in processes else 0
    return own + sum(_ticks_below(child, processes) for child in children)
