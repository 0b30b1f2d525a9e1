"""The server's hot modules as extension modules: all of them load, and the server says that it has them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LIST = """
import importlib, json, sys
sys.path.insert(0, "runtime/compile")
from compile_server import modules
files = [importlib.import_module(".".join(one.with_suffix("").parts)).__file__ for one in modules()]
print(sum(one.endswith(".py") for one in files), len(files))
from enginesmith_runtime.server.transport.http2.transport import Http2Transport
from enginesmith_runtime.server.transport.limits import TransportLimits
limits = TransportLimits(
    max_message_bytes=1, max_connection_age_seconds=None, grace_seconds=1, max_waiting_calls=1, max_streams=1
)
print(Http2Transport({}, limits).name)
"""


def _said(path: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", LIST], cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


@pytest.mark.slow
def test_compiled_modules_are_preferred_and_the_server_says_so() -> None:
    tree = subprocess.run([ROOT / "hack/compiled"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    (counts, name), (own_counts, own_name) = _said(tree), _said("")
    count = counts.split()[1]
    assert (counts, name) == (f"0 {count}", "http2 on uvloop, compiled")
    assert (own_counts, own_name) == (f"{count} {count}", "http2 on uvloop")
