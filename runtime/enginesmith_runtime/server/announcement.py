"""Output of a server that is ready: one JSON line for programs, or text with a command to paste."""

import json
from dataclasses import asdict, dataclass

__all__ = ["Endpoints", "ready_line", "ready_text"]


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Addresses of one server as host:port; None if it does not listen. `transport`: name of the implementation."""

    address: str
    health: str | None
    metrics: str | None
    http: str | None
    transport: str
    models: tuple[str, ...]


def ready_line(endpoints: Endpoints) -> str:
    """Return the endpoints as one line of JSON."""
    return json.dumps({"event": "ready", **asdict(endpoints)}, separators=(",", ":"))


def ready_text(endpoints: Endpoints) -> str:
    """Return text with the endpoint and a client command that works without changes."""
    host, _, port = endpoints.address.rpartition(":")
    reachable = f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]", "") else endpoints.address  # noqa: S104 - compared
    names = ", ".join(endpoints.models)
    lines = [f"Ready: {names} at {reachable} (Open Inference Protocol over gRPC, {endpoints.transport})"]
    if endpoints.http is not None:
        lines.append(f"HTTP: http://{endpoints.http}/v2")
    if endpoints.metrics is not None:
        lines.append(f"Metrics: http://{endpoints.metrics}/metrics")
    lines += (
        ["", "Try it:", f"  enginesmith infer {endpoints.models[0]} --address {reachable}"] if endpoints.models else []
    )
    return "\n".join(lines)
