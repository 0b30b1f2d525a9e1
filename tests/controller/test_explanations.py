"""When events are asked for: after a moment, then more and more seldom, and of nothing that does not wait."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from kubernetes.aio.client import Configuration
from typing_extensions import override

from enginesmith_operator.cluster.client import Api
from enginesmith_operator.cluster.transport import Transport
from enginesmith_operator.controller.shared.explanations import Explanations


@contextmanager
def _events(asked: list[str]) -> Iterator[str]:
    """Serve one event to every question, over HTTP as the API server would."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            event = {"reason": "FailedCreate", "message": "exceeded quota", "lastTimestamp": "2026-11-23T12:00:00Z"}
            body = json.dumps({"items": [event]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_what_waits_is_asked_about_after_a_moment_and_then_more_and_more_seldom() -> None:
    asked: list[str] = []
    now = [100.0]
    waits: list[float | None] = []
    answers: list[str] = []

    async def scenario(host: str) -> None:
        async with Transport(Configuration(host=host)) as transport:
            explanations = Explanations(Api(transport), clock=lambda: now[0])
            for _ in range(5):
                wait = await explanations.learn("vision", "engine", ("job-1", ""))
                waits.append(wait)
                answers.append(explanations.of("engine", "job-1"))
                now[0] += wait or 0.0
            assert await explanations.learn("vision", "engine", ()) is None
            assert explanations.of("engine", "job-1") == ""

    with _events(asked) as host:
        asyncio.run(scenario(host))
    assert waits == [2.0, 3.0, 10.0, 30.0, 60.0]
    assert answers == ["", *["exceeded quota"] * 4]
    assert len(asked) == 4
    assert "/namespaces/vision/events?" in asked[0]
    assert "involvedObject.uid%3Djob-1" in asked[0]


def test_events_that_cannot_be_read_leave_a_status_without_the_reason() -> None:
    now = [100.0]

    async def scenario() -> None:
        async with Transport(Configuration(host="http://127.0.0.1:9")) as transport:
            explanations = Explanations(Api(transport), clock=lambda: now[0])
            await explanations.learn("vision", "engine", ("job-1",))
            now[0] += 2.0
            assert await explanations.learn("vision", "engine", ("job-1",)) == 3.0
            assert explanations.of("engine", "job-1") == ""

    asyncio.run(scenario())
