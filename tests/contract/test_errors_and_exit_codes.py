"""Errors say what, where, why and what to do, and every kind ends a process with a code of its own."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from enginesmith_contract import errors
from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.termination import MAX_TERMINATION_BYTES, BuildOutcome, TerminationMessage


def _kinds(base: type[EnginesmithError] = EnginesmithError) -> Iterator[type[EnginesmithError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)


KINDS = tuple(kind for kind in _kinds() if kind.__module__ == errors.__name__)


def test_the_numbers_that_others_read_never_change() -> None:
    assert {code.name: code.value for code in ExitCode}.items() >= {
        "OK": 0,
        "INTERNAL": 1,
        "USAGE": 2,
        "SPEC_INVALID": 10,
        "PLAN_REFUSED": 11,
        "SOURCE_FAILED": 12,
        "MODEL_INVALID": 13,
        "BUILD_FAILED": 14,
        "BUILD_OUT_OF_MEMORY": 15,
        "BUILD_TIMED_OUT": 16,
        "VERIFICATION_FAILED": 17,
        "STORE_FAILED": 18,
        "ENGINE_REFUSED": 30,
        "DEVICE_FAILED": 31,
        "CANCELLED": 130,
    }.items()


def test_no_two_endings_share_a_number() -> None:
    assert len(ExitCode.__members__) == len({code.value for code in ExitCode})
    assert all(0 <= code <= 255 for code in ExitCode)


def test_every_kind_of_error_has_an_exit_code_and_a_reason_of_its_own() -> None:
    assert len(KINDS) >= 10
    assert len({kind.exit_code for kind in KINDS}) == len(KINDS)
    assert len({kind.default_reason for kind in KINDS}) == len(KINDS)
    assert {kind for kind in KINDS if kind.exit_code in (ExitCode.OK, ExitCode.INTERNAL, ExitCode.USAGE)} == set()
    assert sorted(errors.__all__) == sorted(kind.__name__ for kind in (*KINDS, EnginesmithError))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_reason_is_fit_for_a_kubernetes_condition(kind: type[EnginesmithError]) -> None:
    assert kind.default_reason.isalnum()
    assert kind.default_reason[0].isupper()


@pytest.mark.parametrize(
    ("parts", "want_sentence"),
    [
        ({}, "the digest differs"),
        ({"where": "spec.model"}, "spec.model: the digest differs"),
        ({"where": "spec.model", "why": "found aa"}, "spec.model: the digest differs: found aa"),
        ({"why": "found aa.", "remedy": "upload it again"}, "the digest differs: found aa. Upload it again."),
        ({"remedy": "upload it again."}, "the digest differs. Upload it again."),
    ],
)
def test_a_sentence_is_made_of_the_parts_that_are_there(parts: dict[str, Any], want_sentence: str) -> None:
    error = errors.SourceError("the digest differs", **parts)
    assert error.sentence() == str(error) == want_sentence
    assert (error.reason, error.retry) == ("SourceFailed", False)


def test_the_last_word_of_a_build_is_valid_json() -> None:
    message = TerminationMessage(
        outcome=BuildOutcome.FAILED,
        exit_code=ExitCode.BUILD_FAILED,
        engine_key="ab" * 32,
        reason="UnsupportedOperators",
        message='node 3 "Größe" (NonZero):\n\tPlugin not found',
        retry=False,
    )
    document = json.loads(message.to_json())
    assert document["exitCode"] == 14
    assert document["outcome"] == "failed"
    assert TerminationMessage.from_json(message.to_json()) == message
    assert len(message.to_json()) < MAX_TERMINATION_BYTES == 4096
