"""Section `refusals`: bad input of every kind, each tried in its own process, and the error that it gets.

What one GPU cannot show (a plan of another GPU model) is injected at the boundary, and marked so.
"""

import json
import subprocess
import sys
from typing import Any, Final

from benchmarks.gpu.attempts import ATTEMPTS
from benchmarks.gpu.documents import Workplace

__all__ = ["try_bad_input"]

_SECONDS: Final = 150
_TOGETHER: Final = 4


def try_bad_input(work: Workplace) -> dict[str, Any]:
    """Return the expected and the actual reason, by name."""
    figures: dict[str, Any] = {}
    shared = [one for one in ATTEMPTS if not one.alone]
    for start in range(0, len(shared), _TOGETHER):
        group = shared[start : start + _TOGETHER]
        running = [(one, _start(work, one.name)) for one in group]
        for one, process in running:
            figures[one.name] = {"wanted": one.wanted, "injected": one.injected, **_outcome(process)}
    for one in ATTEMPTS:
        if one.alone:
            outcome = _outcome(_start(work, one.name))
            figures[one.name] = {"wanted": one.wanted, "injected": one.injected, **outcome}
    for found in figures.values():
        found["asWanted"] = found.get("reason") == found["wanted"]
    return figures


def _start(work: Workplace, name: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.gpu.attempts", str(work.root), work.backend, name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _outcome(process: "subprocess.Popen[str]") -> dict[str, Any]:
    try:
        out, errors = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"failed": f"no answer in {_SECONDS} s"}
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if not lines:
        return {"failed": f"exit status {process.returncode}", "said": errors[-800:]}
    return dict(json.loads(lines[-1]))
