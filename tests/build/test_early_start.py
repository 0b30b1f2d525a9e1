"""The builder's process starts before the model is there, so that its library starts while the model is fetched."""

import os
import time
from pathlib import Path

import pytest

from enginesmith_contract.errors import StoreError
from enginesmith_contract.verification import VerificationStatus
from enginesmith_runtime.build.child import run_child
from enginesmith_runtime.build.wire import ChildJob
from enginesmith_runtime.progress import SilentReporter

_CHILD = "enginesmith_runtime.build.worker"


def _children() -> list[str]:
    """Return the commands of this process's builders."""
    pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    commands = (Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in pids)
    return [command for command in commands if _CHILD in command]


def _started_child() -> str:
    """Return the builder's command; the kernel shows it a moment after the process is there."""
    while not (found := _children()):
        time.sleep(0.01)
    return found[0].rstrip()


@pytest.mark.slow
def test_the_process_is_there_before_the_model_is(job: ChildJob, work: Path) -> None:
    seen: list[str] = []

    def lay_out() -> ChildJob:
        seen.append(_started_child())
        return job

    same, result = run_child(job.request, lay_out, work, SilentReporter())

    assert seen[0].endswith("job.json onnxruntime")
    assert same == job
    assert result.verification.status is VerificationStatus.PASSED


def test_a_model_that_cannot_be_had_ends_the_process_with_its_own_words(job: ChildJob, work: Path) -> None:
    def lay_out() -> ChildJob:
        raise StoreError("a blob is gone", where="blobs/0", reason="BlobMissing")

    with pytest.raises(StoreError) as caught:
        run_child(job.request, lay_out, work, SilentReporter())
    assert caught.value.reason == "BlobMissing"
    assert _children() == []


@pytest.mark.slow
def test_a_build_that_may_refit_starts_no_builder_early(job: ChildJob, work: Path) -> None:
    options = job.request.options.model_copy(update={"refittable": True})
    request = job.request.model_copy(update={"options": options})
    seen: list[str] = []

    def lay_out() -> ChildJob:
        seen.append(_started_child())
        return job

    run_child(request, lay_out, work, SilentReporter())
    assert seen[0].endswith("job.json")
