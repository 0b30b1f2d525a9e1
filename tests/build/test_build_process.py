"""A builder as a process: its exit codes, its last word, and what is left after every way to end it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from enginesmith_contract.backends import Backend
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.store_layout import engine_pointer
from enginesmith_runtime.store.interface import Store

PrepareModel = Callable[..., Preparation]
MakeRequest = Callable[..., BuildRequest]
StartBuild = Callable[..., "subprocess.Popen[str]"]
ReadTermination = Callable[..., dict[str, object]]

pytestmark = pytest.mark.slow

_LIMIT_SECONDS = 600


@pytest.fixture
def long_request(prepare_ocr: PrepareModel, make_request: MakeRequest) -> BuildRequest:
    """Return a request whose native build alone takes more than a second."""
    return make_request(prepare_ocr("rec"), Backend.TENSORRT_RTX)


def _wait_for_stage(process: "subprocess.Popen[str]", stage: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line)["stage"] == stage:
            return
    raise AssertionError(f"the stage {stage} never began")


def _children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
    return [int(word) for word in listed.split()]


def _is_builder(number: int) -> bool:
    return b"enginesmith_runtime.build.worker" in Path(f"/proc/{number}/cmdline").read_bytes()


def _freeze_child(process: "subprocess.Popen[str]") -> list[int]:
    """Stop the child while it builds: it then does nothing by itself any more, not even end."""
    _wait_for_stage(process, "build")
    children = _children(process.pid)
    assert children
    for child in children:
        os.kill(child, signal.SIGSTOP)
    return children


def _wait_until_gone(numbers: list[int]) -> list[int]:
    """Return those that are still there after a while."""
    deadline = time.monotonic() + _LIMIT_SECONDS
    left = numbers
    while left and time.monotonic() < deadline:
        left = [number for number in left if _is_running(number)]
        time.sleep(0.02)
    return left


def _is_running(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_build_ends_with_zero_the_manifest_and_a_last_word(
    small_request: BuildRequest, start_build: StartBuild, read_termination: ReadTermination
) -> None:
    process = start_build(small_request)
    output, errors = process.communicate(timeout=_LIMIT_SECONDS)
    assert process.returncode == ExitCode.OK, errors
    manifest = Manifest.from_json(output)
    word = read_termination()
    assert (word["outcome"], word["engineKey"]) == ("succeeded", small_request.engine_key)
    assert (word["engineDigest"], word["verification"]) == (manifest.engine_digest, "passed")
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [(line["stage"], line["event"]) for line in lines] == [
        (stage, event) for stage in ("build", "verify", "store") for event in ("begin", "end")
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_build_kills_its_child_and_leaves_nothing(
    number: signal.Signals,
    long_request: BuildRequest,
    start_build: StartBuild,
    store: Store,
    work: Path,
    read_termination: ReadTermination,
) -> None:
    process = start_build(long_request)
    children = _freeze_child(process)
    process.send_signal(number)
    process.communicate(timeout=_LIMIT_SECONDS)
    assert process.returncode == ExitCode.CANCELLED
    assert _wait_until_gone(children) == []
    assert list(work.iterdir()) == []
    assert list(store.list_pointers("keys")) == []
    assert read_termination()["reason"] == "Cancelled"


def test_a_build_that_takes_too_long_is_stopped_by_its_own_timeout(
    long_request: BuildRequest, start_build: StartBuild, work: Path, read_termination: ReadTermination
) -> None:
    options = long_request.options.model_copy(update={"timeout_seconds": 5.0})
    process = start_build(long_request.model_copy(update={"options": options}))
    # Frozen as soon as it is a program of its own, it ends by no other cause, however quick or slow the machine is.
    while not (children := [child for child in _children(process.pid) if _is_builder(child)]):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(children[0], signal.SIGSTOP)
    process.communicate(timeout=_LIMIT_SECONDS)
    assert process.returncode == ExitCode.BUILD_TIMED_OUT
    assert _wait_until_gone(children) == []
    assert list(work.iterdir()) == []
    word = read_termination()
    assert word["reason"] == "TimedOut"
    assert "build.timeout" in str(word["message"])
    assert "optimizationLevel" not in str(word["message"]), "this backend has no levels"


@pytest.mark.parametrize(
    ("number", "want_code", "want_reason"),
    [
        (signal.SIGKILL, ExitCode.BUILD_OUT_OF_MEMORY, "OutOfMemory"),
        (signal.SIGABRT, ExitCode.BUILD_FAILED, "BuilderAborted"),
        (signal.SIGSEGV, ExitCode.BUILD_FAILED, "BuilderCrashed"),
    ],
)
def test_a_child_that_dies_is_told_by_what_it_died_of(
    number: signal.Signals,
    want_code: ExitCode,
    want_reason: str,
    long_request: BuildRequest,
    start_build: StartBuild,
    read_termination: ReadTermination,
) -> None:
    process = start_build(long_request)
    _wait_for_stage(process, "build")
    (child,) = _children(process.pid)
    os.kill(child, number)
    _, errors = process.communicate(timeout=_LIMIT_SECONDS)
    assert process.returncode == want_code
    assert read_termination()["reason"] == want_reason
    assert "Traceback" not in errors


def test_a_builder_that_is_killed_takes_its_child_along(long_request: BuildRequest, start_build: StartBuild) -> None:
    process = start_build(long_request)
    children = _freeze_child(process)
    process.kill()
    process.communicate(timeout=_LIMIT_SECONDS)
    assert _wait_until_gone(children) == []


def test_a_builder_killed_at_any_moment_leaves_no_half_engine(
    long_request: BuildRequest, start_build: StartBuild, store: Store, work: Path
) -> None:
    moments = random.Random(20261123)  # noqa: S311 - moments, no secrets
    for _ in range(8):
        process = start_build(long_request)
        time.sleep(moments.uniform(0.3, 3.0))
        children = _children(process.pid) if process.poll() is None else []
        process.kill()
        process.communicate(timeout=_LIMIT_SECONDS)
        assert _wait_until_gone(children) == []
        document = store.read_pointer(engine_pointer(long_request.engine_key))
        if document is not None:
            store.get_files(Manifest.from_json(document).files, work / "copy")
    process = start_build(long_request)
    output, errors = process.communicate(timeout=_LIMIT_SECONDS)
    assert process.returncode == ExitCode.OK, errors
    assert store.get_files(Manifest.from_json(output).files, work / "last").exists()


def test_of_two_builders_of_one_key_one_builds_and_both_return_the_same(
    long_request: BuildRequest, start_build: StartBuild
) -> None:
    processes = [start_build(long_request), start_build(long_request)]
    ends = [process.communicate(timeout=_LIMIT_SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [ExitCode.OK, ExitCode.OK]
    assert ends[0][0] == ends[1][0]
    begun = [errors.count('"event": "begin"') for _, errors in ends]
    assert sorted(begun) == [0, 3]


@pytest.mark.parametrize("document", [b"", b"{", b'{"engineKey": 1}', b"\xff\xfe"])
def test_a_request_that_cannot_be_read_ends_in_one_sentence(document: bytes, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_bytes(document)
    log = tmp_path / "termination.json"
    run = subprocess.run(
        [sys.executable, "-m", "enginesmith_runtime.build"],
        env=os.environ
        | {
            "ENGINESMITH_BUILD_REQUEST": str(request),
            "ENGINESMITH_TERMINATION_LOG": str(log),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT_SECONDS,
    )
    assert run.returncode == ExitCode.SPEC_INVALID
    assert "Traceback" not in run.stderr
    assert json.loads(log.read_bytes())["outcome"] == "failed"
