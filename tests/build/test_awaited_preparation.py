"""A builder that begins before the preparation has ended: it waits for it with its library started, within a limit."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.environment import PREPARATION_WAIT
from enginesmith_contract.errors import BuildTimedOutError, CancelledBuildError, SpecError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.store_layout import preparation_pointer
from enginesmith_contract.verification import OutputGate, VerificationStatus
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.pod.signals import signals_cancel
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.interface import Store

_CHILD = "enginesmith_runtime.build.worker"
_LONG = 600.0


class _AtLook(SilentReporter):
    """Does something at the third look for the preparation."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.looks = 0
        self.stages: list[str] = []
        self._act = act

    @override
    def begin(self, stage: str, detail: str = "") -> None:
        self.stages.append(stage)

    @override
    def advance(self, fraction: float, detail: str = "") -> None:
        if self.stages[-1] != "prepare":
            return
        self.looks += 1
        if self.looks == 3:
            self._act()


@pytest.fixture
def taken(store: Store, small_request: BuildRequest) -> tuple[str, bytes]:
    """Take the preparation's pointer out of the store; return its name and document."""
    pointer = preparation_pointer(small_request.key_inputs.preparation_key)
    document = store.read_pointer(pointer)
    assert document is not None
    store.delete_pointer(pointer)
    return pointer, document


def _builders() -> list[str]:
    """Return the commands of this process's builders."""
    pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    commands = (Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in pids)
    return [command for command in commands if _CHILD in command]


@pytest.mark.slow
def test_it_goes_on_as_soon_as_the_preparation_is_stored(
    small_request: BuildRequest, store: Store, work: Path, taken: tuple[str, bytes]
) -> None:
    running: list[list[str]] = []

    def prepare() -> None:
        running.append(_builders())
        store.create_pointer(*taken)

    reporter = _AtLook(prepare)
    manifest = build(small_request, work, reporter, wait_seconds=_LONG)
    assert len(running[0]) == 1, "its process starts before the preparation has ended"
    assert reporter.looks == 3
    assert reporter.stages == ["prepare", "build", "verify", "store"]
    assert manifest.verification.status is VerificationStatus.PASSED
    assert build(small_request, work, SilentReporter()) == manifest


def test_it_does_not_wait_longer_than_it_may(small_request: BuildRequest, work: Path, taken: tuple[str, bytes]) -> None:
    with pytest.raises(BuildTimedOutError) as caught:
        build(small_request, work, SilentReporter(), wait_seconds=0.01)
    error = caught.value
    assert (error.reason, error.retry) == ("PreparationLate", True)
    assert str(error) == (
        f"{taken[0]}: the model's preparation has not ended yet: the builder waited 0.01 s for it and gave its GPU "
        "back. Nothing is to be done: the engine is built when the preparation has ended."
    )
    assert _builders() == []
    assert list(work.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("taken")
def test_a_pods_variable_lets_it_wait_and_it_says_that_another_attempt_helps(
    small_request: BuildRequest,
    start_build: Callable[..., Any],
    read_termination: Callable[[], dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PREPARATION_WAIT, "0.01")
    process = start_build(small_request)
    _, log = process.communicate(timeout=120)
    assert process.returncode == ExitCode.BUILD_TIMED_OUT, "a Job does not try it again by itself"
    assert json.loads(log.splitlines()[0])["stage"] == "prepare"
    said = read_termination()
    assert (said["reason"], said["retry"]) == ("PreparationLate", True)


@pytest.mark.usefixtures("taken")
def test_it_is_cancelled_while_it_waits(small_request: BuildRequest, work: Path) -> None:
    reporter = _AtLook(lambda: os.kill(os.getpid(), signal.SIGTERM))
    with signals_cancel(), pytest.raises(CancelledBuildError):
        build(small_request, work, reporter, wait_seconds=_LONG)
    assert _builders() == []
    assert list(work.iterdir()) == []


def test_what_the_preparation_makes_impossible_ends_it_before_the_builder_builds(
    small_request: BuildRequest, store: Store, work: Path, taken: tuple[str, bytes]
) -> None:
    outputs = {"nowhere": OutputGate(limit=0.1)}
    verification = small_request.verification.model_copy(update={"outputs": outputs})
    reporter = _AtLook(lambda: store.create_pointer(*taken))
    with pytest.raises(SpecError):
        build(small_request.model_copy(update={"verification": verification}), work, reporter, wait_seconds=_LONG)
    assert reporter.stages == ["prepare"]
    assert _builders() == []
