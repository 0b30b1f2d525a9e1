"""What the pipeline and its child process tell each other.

The job and the result are files in the work folder; progress is one JSON line an event on the child's event stream.
"""

import json
from collections.abc import Mapping
from typing import IO, Final

from pydantic import JsonValue

from enginesmith_contract.backends import Hardware
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.manifest import Manifest, Timings
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.record import Record
from enginesmith_contract.tensors import TensorSpec
from enginesmith_contract.verification import Verification
from enginesmith_runtime.child_processes import ChildFailure
from enginesmith_runtime.progress import Fact, Reporter

__all__ = ["ChildAnswer", "ChildJob", "ChildResult", "PipeReporter", "replay"]

_BEGIN: Final = "begin"
_ADVANCE: Final = "advance"
_END: Final = "end"


class ChildJob(Record):
    """One build, with every path absolute and on the local disk.

    Attributes:
        references: the folder in which the preparation's reference files lie under their own paths.
        timings: folder of the timing caches, on their way between the store and the library; empty: there are none.
        answer: where the child writes its ChildAnswer.
        metric: folder that receives the samples of a user's metric; empty: there is none.
        stored: manifest of an engine in `output` to run again in place of a build; None: build.
        refit_base: manifest of an engine to refit in place of a build, its plan at `refit_plan`; None: build.
    """

    request: BuildRequest
    preparation: Preparation
    model: str
    output: str
    references: str
    plugins: tuple[str, ...] = ()
    timings: str = ""
    metric: str = ""
    stored: Manifest | None = None
    refit_base: Manifest | None = None
    refit_plan: str = ""
    answer: str


class ChildResult(Record):
    """What was built. `files` are relative to the job's output."""

    files: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    runs_on: tuple[str, ...]
    device_memory_bytes: int | None = None
    inspector: Mapping[str, JsonValue]
    hardware: Hardware
    verification: Verification
    timings: Timings
    refitted_from: str | None = None
    notes: tuple[str, ...] = ()


class ChildAnswer(Record):
    """The child's final answer; one of the two is set."""

    result: ChildResult | None = None
    failure: ChildFailure | None = None


class PipeReporter:
    """A Reporter at the child's end of the pipe."""

    def __init__(self, events: IO[bytes]) -> None:
        self._events = events

    def begin(self, stage: str, detail: str = "") -> None:
        """Begin a stage."""
        self._send({"event": _BEGIN, "stage": stage, "detail": detail})

    def advance(self, fraction: float, detail: str = "") -> None:
        """Say how much of the stage is done, 0 to 1."""
        self._send({"event": _ADVANCE, "fraction": fraction, "detail": detail})

    def end(self, **facts: Fact) -> None:
        """End the stage."""
        self._send({"event": _END, "facts": facts})

    def _send(self, event: Mapping[str, object]) -> None:
        # One write of less than PIPE_BUF bytes is atomic, so threads need no lock.
        self._events.write(json.dumps(event).encode() + b"\n")


def replay(line: bytes, reporter: Reporter) -> None:
    """Repeat one event of the pipe; a line that the child's death cut off can be ignored."""
    try:
        event = json.loads(line)
    except ValueError:
        return
    match event:
        case {"event": "begin", "stage": str(stage), "detail": str(detail)}:
            reporter.begin(stage, detail)
        case {"event": "advance", "fraction": int() | float() as fraction, "detail": str(detail)}:
            reporter.advance(fraction, detail)
        case {"event": "end", "facts": dict(facts)}:
            reporter.end(**facts)
        case _:
            return
