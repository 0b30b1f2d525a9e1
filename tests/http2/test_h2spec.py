"""Every case of h2spec passes against the transport that speaks HTTP/2 itself; grpcio's core fails more than half."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

CASES = 146
"""Of this h2spec with its strict ones; a program that runs fewer proves less."""

_ANSWER_SECONDS = "60"
"""What a case waits for an answer; only a case that fails waits so long."""


def test_every_case_of_h2spec_passes(http2_server: Any, h2spec: Path) -> None:
    _check(h2spec, "--port", str(http2_server.port))


def test_every_case_of_h2spec_passes_over_tls(tls_server: Any, h2spec: Path) -> None:
    _check(h2spec, "--port", str(tls_server.port), "--tls", "--insecure")


def _check(h2spec: Path, *options: str) -> None:
    run = subprocess.run(
        [h2spec, "--host", "127.0.0.1", "--strict", "--timeout", _ANSWER_SECONDS, *options],
        check=False,
        capture_output=True,
        text=True,
    )
    assert re.findall(r"^ *\u00d7 .*", run.stdout, re.MULTILINE) == [], run.stdout
    # A case that does not apply is skipped: there is none, as all limits that it reads are announced.
    assert run.stdout.splitlines()[-1] == f"{CASES} tests, {CASES} passed, 0 skipped, 0 failed"
