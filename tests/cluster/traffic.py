"""Steady requests to an engine over one connection, from a process of its own, and what became of each.

    python -m tests.cluster.traffic HOST:PORT MODEL INPUT SHAPE [ACCESS]    asks a model with zeros, until SIGTERM

ACCESS is an `Access` as JSON, of a server with TLS.

The client is grpcio as it comes, with retries switched off. It counts from its first answer on, and reconnects quickly,
so that a gap that it sees is the servers' and not its own pause before another attempt. Each answer is a JSON line.
"""

import json
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import grpc

from enginesmith_contract.protos import inference_pb2 as pb

__all__ = ["Access", "Answer", "Traffic", "steady_traffic"]

_ROOT = Path(__file__).resolve().parents[2]
_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_ENGINE_HEADER = "enginesmith-engine"
_CLASSIFIER = ("x", (1, 3, 48, 192))
_PER_SECOND = 60.0
_DEADLINE_SECONDS = 60.0
_PATIENCE_SECONDS = 300.0
"""For the first answer, and for the last ones: several times what they take on a busy machine."""
_OVERLOADED = grpc.StatusCode.RESOURCE_EXHAUSTED.name
_OPTIONS = [
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long one attempt may take: a pod that is short of processors must not be given up.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 200),
]


@dataclass(frozen=True, kw_only=True)
class Access:
    """How a client gets into a server with TLS.

    Attributes:
        name: of the server's certificate.
        ca: authorities of the server, in PEM.
        certificate: of the client, in PEM.
        key: of the client, in PEM.
        token: of the client.
    """

    name: str
    ca: str
    certificate: str
    key: str
    token: str

    def channel(self, address: str, options: list[tuple[str, Any]]) -> grpc.Channel:
        """Return a channel to host and port."""
        credentials = grpc.ssl_channel_credentials(self.ca.encode(), self.key.encode(), self.certificate.encode())
        return grpc.secure_channel(address, credentials, [*options, ("grpc.ssl_target_name_override", self.name)])

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what each call carries."""
        return (("authorization", f"Bearer {self.token}"),)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of one request.

    Attributes:
        sent: seconds of the machine's monotonic clock.
        answered: of the same clock.
        code: of gRPC, by name.
        details: the server's words; empty where it answered.
        engine: key in the header of the response; empty without one.
    """

    sent: float
    answered: float
    code: str
    details: str = ""
    engine: str = ""

    @property
    def is_good(self) -> bool:
        """Whether an engine answered."""
        return bool(self.code == grpc.StatusCode.OK.name)


@dataclass(frozen=True)
class Traffic:
    """What a client has seen so far, read anew at each question."""

    log: Path

    def answers(self) -> list[Answer]:
        """Return all answers, in the order in which their requests were sent."""
        whole = self.log.read_text().rpartition("\n")[0]
        return sorted((Answer(**json.loads(line)) for line in whole.splitlines()), key=lambda one: one.sent)

    def engines(self) -> list[str]:
        """Return the keys of the engines that answered, each as often as the client came to it from another one."""
        return [key for key, _ in groupby(one.engine for one in self.answers() if one.is_good)]

    def errors(self) -> list[Answer]:
        """Return the requests that no engine answered."""
        return [one for one in self.answers() if not one.is_good]

    def lost(self) -> list[Answer]:
        """Return those errors that no client may see of a change.

        A full queue is none: a busy machine cannot answer everything at the client's pace, and the server says so.
        """
        return [one for one in self.errors() if one.code != _OVERLOADED]

    def per_second(self) -> float:
        """Return how many requests were sent in a second."""
        answers = self.answers()
        return (len(answers) - 1) / (answers[-1].sent - answers[0].sent)

    def gap_seconds(self) -> float:
        """Return the longest time between two good answers."""
        times = sorted(one.answered for one in self.answers() if one.is_good)
        return max((after - before for before, after in pairwise(times)), default=0.0)

    def switch_seconds(self) -> list[float]:
        """Return how long nobody answered at each switch: from an engine's last answer to the first of the next."""
        good = [one for one in self.answers() if one.is_good]
        return [after.answered - before.answered for before, after in pairwise(good) if before.engine != after.engine]


@contextmanager
def steady_traffic(
    address: str,
    model: str,
    log: Path,
    tensor: tuple[str, tuple[int, ...]] = _CLASSIFIER,
    access: Access | None = None,
) -> Iterator[Traffic]:
    """Send requests while the block runs; at its end every request has an answer.

    Args:
        address: host and port.
        model: name of the InferenceEngine.
        log: to be written.
        tensor: name and shape of its only input, which is FP32; by default that of the text direction classifier.
        access: to a server with TLS; None: the server speaks plaintext.
    """
    name, shape = tensor
    with log.open("w") as answers:
        command = [sys.executable, "-m", "tests.cluster.traffic", address, model, name, ",".join(map(str, shape))]
        command += [] if access is None else [json.dumps(asdict(access))]
        process = subprocess.Popen(command, cwd=_ROOT, stdout=answers)
    try:
        yield Traffic(log)
    finally:
        process.terminate()
        assert process.wait(_PATIENCE_SECONDS) == 0


class _Client:
    """Sends one request every `1 / _PER_SECOND` seconds, whatever became of those before."""

    def __init__(self, address: str, model: str, name: str, shape: tuple[int, ...], access: Access | None) -> None:
        self._metadata = () if access is None else access.metadata
        self._channel = (
            grpc.insecure_channel(address, options=_OPTIONS) if access is None else access.channel(address, _OPTIONS)
        )
        self._infer = self._channel.unary_unary(_METHOD)
        tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype="FP32", shape=shape)
        values = bytes(4 * math.prod(shape))
        self._request = pb.ModelInferRequest(
            model_name=model, inputs=[tensor], raw_input_contents=[values]
        ).SerializeToString()
        self._changed = threading.Condition()
        self._open = 0

    def send_until(self, ended: threading.Event) -> None:
        """Send until `ended`, then wait for what is still open."""
        # A Service leads to its first pod a moment after that is Ready, when every node has heard of it.
        self._infer(self._request, timeout=_PATIENCE_SECONDS, wait_for_ready=True, metadata=self._metadata)
        due = time.monotonic()
        while not ended.wait(max(due - time.monotonic(), 0.0)):
            self._send()
            # After a moment without a processor the rate is made up for.
            due += 1 / _PER_SECOND
        with self._changed:
            self._changed.wait_for(lambda: self._open == 0, 2 * _DEADLINE_SECONDS)

    def _send(self) -> None:
        with self._changed:
            self._open += 1
        sent = time.monotonic()
        self._infer.future(self._request, timeout=_DEADLINE_SECONDS, metadata=self._metadata).add_done_callback(
            lambda future: self._note(sent, future)
        )

    def _note(self, sent: float, future: Any) -> None:
        code = future.code()
        headers = dict(future.initial_metadata() or ()) if code is grpc.StatusCode.OK else {}
        answer = Answer(
            sent=sent,
            answered=time.monotonic(),
            code=code.name,
            details="" if code is grpc.StatusCode.OK else future.details(),
            engine=headers.get(_ENGINE_HEADER, ""),
        )
        with self._changed:
            print(json.dumps(asdict(answer)), flush=True)  # noqa: T201 - the result of this program
            self._open -= 1
            self._changed.notify_all()


def main(address: str, model: str, name: str, shape: str, access: str = "") -> None:
    """Ask until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    found = Access(**json.loads(access)) if access else None
    _Client(address, model, name, tuple(map(int, shape.split(","))), found).send_until(ended)


if __name__ == "__main__":
    main(*sys.argv[1:])
