"""Whatever frames come, the HTTP/2 connection keeps its rules and accounts; `tests/http2/fuzz.py` runs for long."""

import logging

import pytest
from tests.http2.fuzz import fuzz

pytestmark = pytest.mark.slow

FRAMES = 200_000
MARGIN = 32 << 20
"""Bytes by which the process may grow."""


def test_no_frames_break_the_server(caplog: pytest.LogCaptureFixture) -> None:
    outcome = fuzz(FRAMES, seed=1)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert outcome.growth_bytes < MARGIN
