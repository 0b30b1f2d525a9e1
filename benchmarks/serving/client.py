"""The native client's runs, and what a server's processes cost meanwhile."""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from benchmarks.measure import resident_bytes
from benchmarks.serving.environment import build_native
from benchmarks.serving.models import Model, Place
from typing_extensions import override

from enginesmith_contract.protos import inference_pb2 as pb

__all__ = ["SHARED_MEMORY", "Row", "Sample", "Work", "prepared", "wait_ready"]

_SERVICE = "/inference.GRPCInferenceService/"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where system shared memory is on Linux
_REGION = "bench"
_PAGE = 4096
_WARM_UP_SECONDS = 0.3
_READY_SECONDS = 120.0
_LARGEST = 64 << 20
_TICKS = os.sysconf("SC_CLK_TCK")

TOLERANCE = 1e-4
"""Of an answer's value v: 1e-4 x (1 + |v|). Requests that run as one batch take other kernels."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: a model, and how it is called."""

    model: str
    in_flight: int
    connections: int = 1
    shared: bool = False

    @override
    def __str__(self) -> str:
        how = f"{self.in_flight} in flight" + (f", {self.connections} connections" if self.connections > 1 else "")
        return f"{self.model}{' (shared memory)' if self.shared else ''}, {how}"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one run of the client saw.

    Attributes:
        rate: correct answers a second.
        cpu_us: processor time of the server for each answer, in microseconds.
        memory: of the server's processes after the run (proportional set size), in bytes.
        close: answers that are within the tolerance and not equal to the bit.
        faults: what went wrong; empty where every answer was right.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    memory: int
    close: int
    faults: tuple[str, ...]


class Work:
    """The files that the client reads for one model."""

    def __init__(self, model: Model, folder: Path, file: Path) -> None:
        self.model = model
        self._folder = folder
        self.names = model.expected(file)[:2]
        answer = model.expected(file)[2]
        self._sizes = (model.values().nbytes, answer.nbytes)
        (folder / "expected").write_bytes(np.ascontiguousarray(answer).tobytes())
        (folder / "echoed").write_bytes(model.values().tobytes())
        self.message = model.request(self.names, None, self._sizes)
        (folder / "request").write_bytes(self.message)

    @contextlib.contextmanager
    def _region(self, row: Row, address: str) -> Iterator[list[str]]:
        """Yield the client's arguments, with shared memory registered where the row wants it."""
        if not row.shared:
            yield ["--request", str(self._folder / "request")]
            return
        stride = -(-sum(self._sizes) // _PAGE) * _PAGE
        descriptor, name = tempfile.mkstemp(prefix="enginesmith-bench-", dir=SHARED_MEMORY)
        path = Path(name)
        arguments = ["--region", name, "--region-offset", str(self._sizes[0]), "--region-stride", str(stride)]
        try:
            os.ftruncate(descriptor, stride * row.in_flight)
            region = f"{_REGION}-{path.name}"
            for slot in range(row.in_flight):
                os.pwrite(descriptor, self.model.values().tobytes(), slot * stride)
                request = self.model.request(self.names, Place(region=region, offset=slot * stride), self._sizes)
                message = self._folder / f"request-{slot}"
                message.write_bytes(request)
                arguments += ["--request", str(message)]
            with grpc.insecure_channel(address) as channel:
                register = pb.SystemSharedMemoryRegisterRequest(
                    name=region, key=f"/{path.name}", byte_size=stride * row.in_flight
                )
                channel.unary_unary(_SERVICE + "SystemSharedMemoryRegister")(register.SerializeToString())
                yield arguments
                with contextlib.suppress(grpc.RpcError):  # not every peer has it
                    gone = pb.SystemSharedMemoryUnregisterRequest(name=region)
                    channel.unary_unary(_SERVICE + "SystemSharedMemoryUnregister")(gone.SerializeToString())
        finally:
            os.close(descriptor)
            path.unlink()

    def measure(self, row: Row, address: str, pid: int, seconds: float, *, echo: bool) -> Sample:
        """Send requests to the server once; an echo must return its input."""
        with self._region(row, address) as requests:
            command = [str(build_native() / "load"), "--address", address, *requests]
            command += [
                "--expected",
                str(self._folder / ("echoed" if echo else "expected")),
                "--tolerance",
                str(TOLERANCE),
            ]
            command += ["--in-flight", str(row.in_flight), "--connections", str(row.connections)]
            command += ["--seconds", str(seconds), "--warm-up", str(_WARM_UP_SECONDS)]
            before = _cpu_seconds(pid)
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            spent = _cpu_seconds(pid) - before
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        seen: dict[str, Any] = json.loads(done.stdout)
        faults = [f"{count} x {text}" for text, count in seen["errorTexts"].items()]
        if seen["wrong"]:
            faults.append(f"{seen['wrong']} wrong answers")
        return Sample(
            rate=seen["requestsPerSecond"],
            p50_ms=seen["p50Ms"] or 0.0,
            p99_ms=seen["p99Ms"] or 0.0,
            cpu_us=spent / max(seen["answersInAll"], 1) * 1e6,
            memory=sum(resident_bytes(one) for one in _family(pid)),
            close=seen["close"],
            faults=tuple(faults),
        )


def prepared(model: Model, folder: Path) -> tuple[Work, Path]:
    """Return the client's files and the model's."""
    folder.mkdir(exist_ok=True)
    file = model.file(folder)
    return Work(model, folder, file), file


def wait_ready(work: Work, address: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the server answers.

    Raises:
        RuntimeError: it ended, or it does not answer in time.
    """
    until = time.monotonic() + _READY_SECONDS
    options = [("grpc.max_receive_message_length", _LARGEST), ("grpc.initial_reconnect_backoff_ms", 100)]
    with grpc.insecure_channel(address, options=options) as channel:
        call = channel.unary_unary(_SERVICE + "ModelInfer")
        while True:
            try:
                call(work.message, timeout=5.0)
            except grpc.RpcError as error:
                if process.poll() is not None:
                    raise RuntimeError(f"it ended with status {process.returncode}") from error
                if time.monotonic() > until:
                    raise RuntimeError(f"it does not answer: {error.details()}") from error
                time.sleep(0.1)
            else:
                return


def _family(pid: int) -> list[int]:
    """Return a process and all that it started, as far as they live."""
    members = [pid]
    for member in members:
        for thread in Path(f"/proc/{member}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                members += [int(child) for child in thread.read_text().split()]
    return members


def _cpu_seconds(pid: int) -> float:
    """Return the processor time that these processes and their ended children took."""
    total = 0
    for member in _family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:13])
    return total / _TICKS
