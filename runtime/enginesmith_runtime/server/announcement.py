"""What a server prints when it is ready: one JSON line for programs, a call to paste for people."""

import json
from dataclasses import asdict, dataclass

__all__ = ["Endpoints", "ready_line", "ready_text"]


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Where one server listens, as host:port; None where it does not."""

    address: str
    health: str | None
    metrics: str | None
    models: tuple[str, ...]


def ready_line(endpoints: Endpoints) -> str:
    """Return one line of JSON."""
    return json.dumps({"event": "ready", **asdict(endpoints)}, separators=(",", ":"))


def ready_text(endpoints: Endpoints) -> str:
    """Return the endpoint and a client call that works as it stands."""
    host, _, port = endpoints.address.rpartition(":")
    reachable = f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]", "") else endpoints.address  # noqa: S104 - compared
    lines = [f"Ready: {', '.join(endpoints.models)} at {reachable} (Open Inference Protocol over gRPC)"]
    if endpoints.metrics is not None:
        lines.append(f"Metrics: http://{endpoints.metrics}/metrics")
    lines += (
        ["", "Try it:", f"  enginesmith infer {endpoints.models[0]} --address {reachable}"] if endpoints.models else []
    )
    return "\n".join(lines)
