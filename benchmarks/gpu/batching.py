"""Section `batching`: requests of one image from 32 clients that the server joins, and messages of 4.8 MB.

The engines are those of section `precision`. The batch size that forms is read from the server's statistics; the bare
graph loop then runs at that size. The echo server has the product's own transport (HTTP/2) and as many front ends.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from benchmarks.gpu.documents import Workplace
from benchmarks.gpu.execution import compare
from benchmarks.gpu.serving import Case, described, echo_server, measure_case, running_server
from benchmarks.gpu.workers import run_together, started
from benchmarks.measure import spread

from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_contract.serve_request import BatchingOptions

__all__ = ["measure_batching"]

_CLIENTS: Final = 32
_PROCESSES: Final = 8
_STATISTICS: Final = "/inference.GRPCInferenceService/ModelStatistics"
_PIXELS: Final = "precision-resnet50-uint8-pixels"
_FLOATS: Final = "precision-resnet50-fp16"


@dataclass(frozen=True, kw_only=True)
class _Way:
    """How a server is set up; `joined`: requests of one image are joined, else messages of 4.8 MB are sent."""

    name: str
    front_ends: int
    instances: int
    delay_seconds: float = 0.0
    joined: bool = True

    @property
    def title(self) -> str:
        """What its figures are kept under."""
        if not self.joined:
            return f"{self.name}, messages of 8 images, {self.front_ends} front ends"
        delay = f"{1e3 * self.delay_seconds:g} ms"
        return f"{self.name}, {self.front_ends} front ends, {self.instances} instances, delay {delay}"


# The most valuable first: the section's time may end.
_WAYS: Final = (
    _Way(name=_PIXELS, front_ends=4, instances=2, delay_seconds=0.001),
    _Way(name=_FLOATS, front_ends=4, instances=2, delay_seconds=0.001),
    _Way(name=_FLOATS, front_ends=0, instances=8, joined=False),
    _Way(name=_PIXELS, front_ends=4, instances=4, delay_seconds=0.0005),
    _Way(name=_FLOATS, front_ends=4, instances=8, joined=False),
    _Way(name=_PIXELS, front_ends=0, instances=2, delay_seconds=0.001),
    _Way(name=_FLOATS, front_ends=4, instances=4),
)


def measure_batching(
    work: Workplace, *, rounds: int, seconds: float, budget_seconds: float, load_client: str = ""
) -> dict[str, Any]:
    """Return rates and ratios by engine and setting.

    Args:
        work: has the engines.
        rounds: of every measurement.
        seconds: of one round.
        budget_seconds: of the section, after which no setting is begun.
        load_client: the native client; empty: clients in Python, which take more of the processors.
    """
    until = time.monotonic() + budget_seconds
    figures: dict[str, Any] = {
        "clients": _CLIENTS,
        "client": "native" if load_client else "Python",
        "transport": "http2, of server and echo server",
    }
    log = work.root / "batching-server.log"
    for way in _WAYS:
        if not work.has(way.name):
            continue
        if time.monotonic() >= until:
            figures[way.title] = {"notMeasured": "the section's time was spent"}
            continue
        try:
            figures[way.title] = _measure(work, way, log, rounds, seconds, load_client)
        except (RuntimeError, ValueError, ArithmeticError, OSError, grpc.RpcError) as error:
            said = log.read_text()[-1500:] if log.exists() else ""
            figures[way.title] = {"failed": f"{type(error).__name__}: {error}", "serverLog": said}
        print(f"{way.title}: {str(figures[way.title])[:900]}", flush=True)
    return figures


def _measure(work: Workplace, way: _Way, log: Path, rounds: int, seconds: float, load_client: str) -> dict[str, Any]:
    batching = BatchingOptions(enabled=way.joined, max_queue_delay_seconds=way.delay_seconds)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(
            work, [way.name], log, front_ends=way.front_ends, instances=way.instances, batching=batching
        ) as address,
    ):
        case = Case(work=work, name=way.name, address=address, folder=Path(folder), front_ends=way.front_ends)
        if not way.joined:
            return measure_case(case, rounds, seconds)
        single = Case(work=work, name=way.name, address=address, folder=case.folder, front_ends=way.front_ends, batch=1)
        return _measure_joined(single, rounds, seconds, load_client)


def _measure_joined(case: Case, rounds: int, seconds: float, load_client: str) -> dict[str, Any]:
    message = case.client(0)[2]
    with echo_server(case.sizes()[1], case.front_ends) as echo:
        ours, theirs = (_clients(address, message, load_client) for address in (case.address, echo))
        with started(*ours, *theirs) as workers:
            formed = _formed(case)
            run_together(workers[: len(ours)], seconds)
            rows = max(1, round(_rows(formed, _formed(case))))
            with started(case.limit(rows)) as limit:
                formed = _formed(case)
                groups = (workers[: len(ours)], workers[len(ours) :], limit)
                served, echoed, bare = compare(groups, rounds, seconds)
                mean = _rows(formed, _formed(case))
    return {
        "messageBytes": Path(message).stat().st_size,
        "formedBatch": round(mean, 1),
        "bareBatch": rows,
        "ours": described(served),
        "echo": described(echoed),
        "bareLoop": described(bare),
        "ofEcho": spread([a.rate / b.rate for a, b in zip(served, echoed, strict=True)]),
        "ofBareLoop": spread([a.rate / (rows * b.rate) for a, b in zip(served, bare, strict=True)]),
    }


def _clients(address: str, message: str, load_client: str) -> list[list[str]]:
    if not load_client:
        return [["benchmarks.gpu.client", address, message] for _ in range(_CLIENTS)]
    each = str(_CLIENTS // _PROCESSES)
    return [["benchmarks.gpu.native_client", load_client, address, message, each] for _ in range(_PROCESSES)]


def _formed(case: Case) -> tuple[int, int]:
    """Return how many images the server has answered, and in how many inferences."""
    with grpc.insecure_channel(case.address) as channel:
        request = pb.ModelStatisticsRequest(name=case.name)
        answer = channel.unary_unary(_STATISTICS)(request.SerializeToString())
    (found,) = pb.ModelStatisticsResponse.FromString(answer).model_stats
    return found.inference_count, found.execution_count


def _rows(before: Sequence[int], after: Sequence[int]) -> float:
    """Return images per inference between two readings."""
    return (after[0] - before[0]) / max(1, after[1] - before[1])
