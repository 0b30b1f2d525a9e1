"""The termination message of a build: always JSON, always UTF-8, never more than kubelet keeps."""

import json
import random
import string
from pathlib import Path

import pytest

from enginesmith_contract.errors import BuildError, BuildTimedOutError
from enginesmith_contract.termination import MAX_TERMINATION_BYTES, BuildOutcome, TerminationMessage
from enginesmith_runtime.build.outcome import encode_outcome, failure_message
from enginesmith_runtime.pod.termination import write_termination

_ALPHABETS = (
    string.printable,
    "äöüß€",
    "模型出错了",
    "\U0001f525\U0001f9ea",
    '"\\\n\t\r\x00\x1b\x7f',
    "\ud800\udfff",
    "a\u0301\u200d\ufeff",
)


@pytest.mark.parametrize("seed", range(200))
def test_any_text_becomes_valid_json_within_the_limit(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - texts, no secrets
    letters = "".join(chance.sample(_ALPHABETS, k=chance.randint(1, len(_ALPHABETS))))
    text = "".join(chance.choices(letters, k=chance.choice((0, 1, 600, 1300, 2000, 4096, 50_000))))
    message = TerminationMessage(
        outcome=BuildOutcome.FAILED, exit_code=14, engine_key="0" * 64, reason="BuildFailed", message=text
    )
    document = encode_outcome(message)
    assert len(document) <= MAX_TERMINATION_BYTES
    read = TerminationMessage.from_json(document.decode())
    assert (read.reason, read.exit_code) == ("BuildFailed", 14)
    cleaned = text.encode(errors="replace").decode()
    assert read.message == cleaned or (read.message.endswith("…") and cleaned.startswith(read.message[:-1]))


def test_as_much_of_the_text_stays_as_fits() -> None:
    message = TerminationMessage(outcome=BuildOutcome.FAILED, exit_code=14, message="x" * 10_000)
    assert len(encode_outcome(message)) == MAX_TERMINATION_BYTES


def test_details_give_way_where_they_alone_are_too_long() -> None:
    latency = {f"profile-{'n' * 300}-{number}": 0.001 for number in range(16)}
    message = TerminationMessage(
        outcome=BuildOutcome.SUCCEEDED, exit_code=0, engine_key="1" * 64, latency_seconds=latency
    )
    read = TerminationMessage.from_json(encode_outcome(message))
    assert (read.latency_seconds, read.engine_key) == ({}, "1" * 64)


def test_a_failure_has_the_code_the_reason_and_the_sentence() -> None:
    error = BuildTimedOutError("the build took longer than it may", where="build.timeout", retry=True)
    read = json.loads(encode_outcome(failure_message(error, None)))
    assert read == {
        "exitCode": 16,
        "latencySeconds": {},
        "message": "build.timeout: the build took longer than it may",
        "outcome": "failed",
        "reason": "TimedOut",
        "retry": True,
    }


def test_a_place_that_cannot_be_written_fails_no_build(tmp_path: Path) -> None:
    message = failure_message(BuildError("it failed"), None)
    write_termination(encode_outcome(message), tmp_path / "missing" / "log")
    write_termination(encode_outcome(message), None)
    assert list(tmp_path.iterdir()) == []
