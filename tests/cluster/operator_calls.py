"""What the operator asks the API server about a namespace, by the audit log: a test of rest looks there."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from tests.cluster.access import Cluster

__all__ = ["OperatorCalls"]

_USER = "system:serviceaccount:enginesmith-system:"
_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 300.0


@dataclass(kw_only=True)
class OperatorCalls:
    """The operator's reads and writes in one namespace from now on.

    Attributes:
        seen: verb, kind and name of each, the oldest first.
    """

    cluster: Cluster
    namespace: str
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin at the end of what was asked until now."""
        self._position = self.cluster.audit_log.stat().st_size

    def until_quiet(self, *, quiet_seconds: float = 6.0) -> None:
        """Wait until the operator sends no requests for a while. If it never stops, fail with its last requests.

        The quiet time is counted in polls, so that a machine that stalls does not look like a quiet operator.
        """
        give_up = time.monotonic() + _PATIENCE_SECONDS
        looks = 0
        while looks * _POLL_SECONDS < quiet_seconds:
            if time.monotonic() > give_up:
                pytest.fail(f"the operator does not come to rest: {self.seen[-20:]}")
            time.sleep(_POLL_SECONDS)
            found = list(self._read())
            self.seen += found
            looks = 0 if found else looks + 1

    def _read(self) -> Iterator[str]:
        with self.cluster.audit_log.open("rb") as log:
            # The API server begins another file once this one is long.
            self._position = self._position if self._position <= os.fstat(log.fileno()).st_size else 0
            log.seek(self._position)
            lines = log.readlines()
        for line in lines:
            if not line.endswith(b"\n"):
                return
            self._position += len(line)
            entry = json.loads(line) if self.namespace.encode() in line else {}
            about = entry.get("objectRef") or {}
            is_ours = entry.get("user", {}).get("username", "").startswith(_USER)
            if is_ours and about.get("namespace") == self.namespace:
                what = "/".join(part for part in (about.get("resource"), about.get("subresource")) if part)
                yield f"{entry['verb']} {what} {about.get('name', '')}"
