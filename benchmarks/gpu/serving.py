"""Section `serving`: the server over gRPC from the same machine, against an echo server and against the bare loop.

One server holds both ResNet-50 engines, without front ends and then with some; eight client processes drive it, and the
echo server, which has as many, and the bare loop run in the pauses between.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.gpu.documents import Workplace
from benchmarks.gpu.execution import compare
from benchmarks.gpu.resnet50 import CLASSES
from benchmarks.gpu.workers import Turns, started
from benchmarks.measure import spread

from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_contract.serve_request import BatchingOptions, ServedModel, ServeRequest

__all__ = ["Case", "described", "echo_server", "measure_case", "measure_serving", "running_server"]

_CLIENTS: Final = 8
_BATCH: Final = 8
_FRONT_ENDS: Final = 4
# One for each client: a request that waits for an instance is handed over between threads.
_INSTANCES: Final = 8
# A thread that spins while it waits keeps the others from the CPU; with several instances that costs more.
_OPTIONS: Final = {"spin": "false"}


@contextlib.contextmanager
def running_server(
    work: Workplace,
    names: Sequence[str],
    log: Path,
    *,
    front_ends: int = 0,
    instances: int = _INSTANCES,
    batching: BatchingOptions | None = None,
) -> Iterator[str]:
    """Give the address of a server with these engines."""
    models = tuple(
        ServedModel(
            name=name,
            target="only",
            engine_key=work.manifest(name).engine_key,
            store=work.store,
            instances=instances,
            batching=batching,
            backend_options=_OPTIONS if work.backend == "tensorrt" else {},
        )
        for name in names
    )
    request = ServeRequest(
        models=models,
        address="127.0.0.1:0",
        max_message_bytes=256 << 20,
        shared_memory=True,
        front_ends=front_ends,
    )
    path = work.root / "serve-request.json"
    path.write_bytes(request.to_json())
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "enginesmith_runtime.server", "--request", str(path)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "ENGINESMITH_LOG_FORMAT": "json"},
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the server ended: {log.read_text()[-2000:]}")
            yield json.loads(line)["address"]
        finally:
            process.terminate()
            process.wait(60)


@contextlib.contextmanager
def echo_server(answer_bytes: int, front_ends: int) -> Iterator[str]:
    """Yield the address of a server on the product's transport that at once returns this many bytes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu.echo_server", str(answer_bytes), str(front_ends)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One engine and one way to hand over its tensors; `batch`: images in a request."""

    work: Workplace
    name: str
    address: str
    folder: Path
    front_ends: int
    shared: bool = False
    batch: int = _BATCH

    @property
    def title(self) -> str:
        """What its figures are kept under."""
        way = " in CUDA shared memory" if self.shared else ""
        return f"{self.name}{way}{f', {self.front_ends} front ends' if self.front_ends else ''}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a request's input."""
        (spec,) = self.work.manifest(self.name).inputs
        return (self.batch, *((224, 224, 3) if spec.dtype.numpy == np.uint8 else (3, 224, 224)))

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of input and output."""
        manifest = self.work.manifest(self.name)
        (spec,), (output,) = manifest.inputs, manifest.outputs
        return (
            int(np.prod(self.shape)) * np.dtype(spec.dtype.numpy).itemsize,
            self.batch * CLASSES * np.dtype(output.dtype.numpy).itemsize,
        )

    def message(self, region: str) -> bytes:
        """Return one request; with a region it names its shared memory and carries no tensor."""
        manifest = self.work.manifest(self.name)
        (spec,), (output,) = manifest.inputs, manifest.outputs
        raw = spec.dtype.numpy == np.uint8
        request = pb.ModelInferRequest(model_name=self.name)
        tensor = request.inputs.add(name=spec.name, datatype="UINT8" if raw else "FP32", shape=self.shape)
        wanted = request.outputs.add(name=output.name)
        if region:
            for parameters, suffix, size in zip(
                (tensor.parameters, wanted.parameters), ("in", "out"), self.sizes(), strict=True
            ):
                parameters["shared_memory_region"].string_param = f"{region}-{suffix}"
                parameters["shared_memory_byte_size"].int64_param = size
            return request.SerializeToString()
        random = np.random.default_rng(0)
        values = random.integers(0, 256, self.shape, np.uint8) if raw else random.random(self.shape, np.float32)
        request.raw_input_contents.append(values.tobytes())
        return request.SerializeToString()

    def client(self, number: int) -> list[str]:
        """Return the command of one client."""
        region = f"{self.name}-{number}" if self.shared else ""
        message = self.folder / f"{self.name}-{region}.message"
        message.write_bytes(self.message(region))
        command = ["benchmarks.gpu.client", self.address, str(message)]
        return (
            [*command, "--device-memory", ",".join(map(str, self.sizes())), "--region", region] if region else command
        )

    def limit(self, batch: int | None = None) -> list[str]:
        """Return the command of the loop that has no server around it, with the request's images or so many."""
        module = "bare_loop" if self.work.backend == "tensorrt" else "engine_loop"
        shape = self.shape if batch is None else (batch, *self.shape[1:])
        return [f"benchmarks.gpu.{module}", str(self.work.root), self.name, "x".join(map(str, shape))]


def measure_serving(work: Workplace, *, rounds: int, seconds: float, quick: bool = False) -> dict[str, Any]:
    """Return rates and ratios for FP32 and UINT8 messages, and for CUDA shared memory; `quick`: one engine each way."""
    figures: dict[str, Any] = {"clients": _CLIENTS, "batch": _BATCH, "instances": _INSTANCES}
    names = [name for name in ("resnet50-fp16", "resnet50-uint8") if work.has(name)]
    ways = (False, True) if work.backend == "tensorrt" else (False,)
    log = work.root / "server.log"
    for front_ends in (0, _FRONT_ENDS):
        with (
            running_server(work, names, log, front_ends=front_ends) as address,
            tempfile.TemporaryDirectory() as folder,
        ):
            some = (names[-1:] if front_ends else names[:1]) if quick else names
            for shared, name in itertools.product(ways, some):
                case = Case(
                    work=work,
                    name=name,
                    address=address,
                    folder=Path(folder),
                    front_ends=front_ends,
                    shared=shared,
                )
                try:
                    figures[case.title] = measure_case(case, rounds, seconds)
                except RuntimeError as error:
                    figures[case.title] = {"failed": str(error), "serverLog": log.read_text()[-1500:]}
    return figures


def measure_case(case: Case, rounds: int, seconds: float) -> dict[str, Any]:
    """Let server, echo server and bare loop run in turn; returns rates and ratios."""
    clients = [case.client(number) for number in range(_CLIENTS)]
    message = Path(clients[0][2])
    with echo_server(case.sizes()[1], case.front_ends) as echo:
        echoes = [["benchmarks.gpu.client", echo, str(message)] for _ in range(_CLIENTS)]
        with started(*clients, *echoes, case.limit()) as workers:
            groups = (workers[:_CLIENTS], workers[_CLIENTS : 2 * _CLIENTS], workers[2 * _CLIENTS :])
            ours, echoed, limit = compare(groups, rounds, seconds)
    return {
        "messageBytes": message.stat().st_size,
        "ours": described(ours),
        "echo": described(echoed),
        "bareLoop": described(limit),
        "ofEcho": spread([a.rate / b.rate for a, b in zip(ours, echoed, strict=True)]),
        "ofBareLoop": spread([a.rate / b.rate for a, b in zip(ours, limit, strict=True)]),
    }


def described(rounds: Sequence[Turns]) -> dict[str, Any]:
    """Return rates and medians of the rounds."""
    return {
        "perSecond": spread([one.rate for one in rounds]),
        "p50Milliseconds": spread([one.p50 * 1e3 for one in rounds]),
    }
