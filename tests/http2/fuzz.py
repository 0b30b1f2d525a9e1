"""Lets fuzzed frames reach the connection's code without a socket, and checks that it keeps its rules and accounts.

As a program it runs for long and writes `tests/records/http2_fuzz.json`:

    python -m tests.http2.fuzz [--frames 10000000] [--seed 1]
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.http2.adapters import limits_of
from tests.http2.frame_fuzzer import FrameFuzzer
from tests.http2.interop_service import Calls, methods
from tests.http2.wire import (
    CLOSED,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INTERNAL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    WINDOW_UPDATE,
)
from typing_extensions import override

from enginesmith_runtime.server.transport.http2.bounds import Bounds
from enginesmith_runtime.server.transport.http2.connection import Connection
from enginesmith_runtime.server.transport.http2.service import Service
from enginesmith_runtime.server.transport.interface import CallContext

RECORD: Final = Path(__file__).parents[1] / "records" / "http2_fuzz.json"
BOUNDS: Final = Bounds(streams=64)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run did.

    Attributes:
        frames: that a server took.
        endings: connections by the error's code with which the server ended them; -1: the client ended it.
        growth_bytes: of the process, between a quarter of the frames and all of them.
    """

    frames: int
    connections: int
    endings: dict[int, int]
    growth_bytes: int


class Sink(asyncio.Transport):
    """Takes what a connection sends."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self.sent = bytearray()
        self.closed = False

    @override
    def write(self, data: Any) -> None:
        if not self.closed:
            self.sent += data

    @override
    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    @override
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high
        assert low is None or low <= high

    @override
    def can_write_eof(self) -> bool:
        return True

    @override
    def write_eof(self) -> None:
        self.close()

    @override
    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._connection.connection_lost(None)

    @override
    def abort(self) -> None:
        self.close()

    @override
    def is_closing(self) -> bool:
        return self.closed

    @override
    def pause_reading(self) -> None:
        """The fuzzer sends nevertheless, as what the kernel had received already."""

    @override
    def resume_reading(self) -> None:
        """Nothing is paused."""


class Server:
    """The part of a server that is not its sockets.

    Attributes:
        frames: how many it has taken: what comes after a connection's end does not count.
    """

    def __init__(self) -> None:
        self.calls = Calls()
        self.frames = 0
        self.loop = asyncio.new_event_loop()
        self.service = Service(methods(self.calls), limits_of(max_waiting_calls=40, max_streams=8), BOUNDS)
        self.service.bind(self.loop)

    def take(self, pieces: list[bytes], frames: int) -> bytes:
        """Let one connection receive pieces of so many frames, and end; returns what it sent."""
        connection = Connection(self.service)
        sink = Sink(connection)
        connection.connection_made(sink)
        taken = 0
        for at, piece in enumerate(pieces):
            taken += len(piece)
            self._receive(connection, sink, piece)
            self._check(connection)
            if sink.closed:
                break
            if at % 8 == 7:
                self.calls.release(b"", CallContext(), lambda _: None)
                self._turn()
        sink.close()
        self._turn()
        self.frames += frames * taken // sum(map(len, pieces))
        return bytes(sink.sent)

    def settle(self) -> None:
        """Wait for what other threads have in hand; then nothing may be left."""
        for _ in range(1000):
            self._turn()
            if not any(self.service.open_calls):
                break
        self.calls.release(b"", CallContext(), lambda _: None)
        assert list(self.service.open_calls) == [0] * len(self.service.open_calls)
        assert self.service.held == 0
        assert not self.service.connections

    def close(self) -> None:
        """End its threads."""
        self.service.close()
        self.loop.close()

    def _receive(self, connection: Connection, sink: Sink, piece: bytes) -> None:
        view = memoryview(piece)
        while view and not sink.closed:
            room = connection.get_buffer(-1)
            assert len(room) > 0, "the event loop would end the connection"
            count = min(len(room), len(view))
            room[:count] = view[:count]
            connection.buffer_updated(count)
            view = view[count:]

    def _check(self, connection: Connection) -> None:
        service = self.service
        assert len(connection.streams) <= BOUNDS.streams
        assert service.held >= 0
        assert all(0 <= count <= kind.most for count, kind in zip(service.open_calls, service.kinds, strict=True))

    def _turn(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))


def check_frames(sent: bytes) -> int:
    """Check what a server sent: whole frames of the right kinds, none after a stream's end, no fault of its own.

    Returns the code of its last GOAWAY.
    """
    at, ended, code = 0, set(), CLOSED
    while at < len(sent):
        word, flags, stream = struct.unpack_from(">IBI", sent, at)
        size, kind = word >> 8, word & 0xFF
        at += 9 + size
        assert at <= len(sent), "a frame is cut"
        assert size <= 1 << 20
        assert kind <= WINDOW_UPDATE
        assert kind != PUSH_PROMISE
        if kind in {DATA, HEADERS}:
            assert stream & 1
            assert stream not in ended
            if flags & END_STREAM:
                ended.add(stream)
        elif kind == RST_STREAM:
            assert stream
            ended.add(stream)
        elif kind == GOAWAY:
            (code,) = struct.unpack_from(">I", sent, at - size + 4)
            assert code != INTERNAL_ERROR
    return code


def process_memory() -> int:
    """Return the bytes of this process that are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fuzz(frames: int, seed: int, note: Callable[[int], None] = lambda _: None) -> Outcome:
    """Let a server take so many frames; `note` is called with how many it has taken.

    Raises:
        AssertionError: it broke a rule.
    """
    fuzzer, server, quarter, connections, endings = FrameFuzzer(seed), Server(), 0, 0, Counter[int]()
    try:
        while server.frames < frames:
            made = fuzzer.frames
            try:
                pieces = fuzzer.connection()
                endings[check_frames(server.take(pieces, fuzzer.frames - made))] += 1
                server.settle()
            except Exception as error:
                error.add_note(f"seed {seed}, the connection that begins after {made} frames")
                raise
            connections += 1
            if not quarter and server.frames > frames // 4:
                quarter = process_memory()
            note(server.frames)
    finally:
        server.close()
    return Outcome(
        frames=server.frames,
        connections=connections,
        endings=dict(sorted(endings.items())),
        growth_bytes=process_memory() - quarter,
    )


class _NoErrors(logging.Handler):
    """What the server logs as an error ends the run."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        raise AssertionError(record.getMessage()) from (record.exc_info[1] if record.exc_info else None)


def main() -> None:
    """Run for long and keep the outcome."""
    parser = argparse.ArgumentParser(description="Fuzzes the server's HTTP/2.")
    parser.add_argument("--frames", type=int, default=10_000_000, help="that the server takes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the frames (default: %(default)s)")
    options = parser.parse_args()
    logging.getLogger().addHandler(_NoErrors(logging.ERROR))
    began, shown = time.monotonic(), 0

    def note(frames: int) -> None:
        nonlocal shown
        if frames - shown >= 100_000:
            shown = frames
            print(f"{frames:,} frames in {time.monotonic() - began:,.0f} s", flush=True)  # noqa: T201 - a program

    outcome = fuzz(options.frames, options.seed, note)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], check=True, capture_output=True, text=True)
    record = {
        "command": f"python -m tests.http2.fuzz --frames {options.frames} --seed {options.seed}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit.stdout.strip(),
        "seconds": round(time.monotonic() - began),
        **vars(outcome),
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
