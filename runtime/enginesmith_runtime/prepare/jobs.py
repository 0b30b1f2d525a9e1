"""What the preparation tells its child processes, and what they answer.

Nothing of a user's model is read in the preparing process itself: libraries that parse and run models crash, fill the
memory and cannot be interrupted. Each step is one job for `enginesmith_runtime.prepare.worker`, which answers with
events; the parent keeps what was answered before a child died.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from pydantic import JsonValue

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.preparation import Advice
from enginesmith_contract.record import Record
from enginesmith_contract.tensors import ModelFacts
from enginesmith_contract.verification import InputValues

__all__ = [
    "AnyJob",
    "BatchJob",
    "CastJob",
    "CastResult",
    "Event",
    "EventKind",
    "Feed",
    "InspectJob",
    "Inspection",
    "ProbeJob",
    "RangeJob",
    "Rehearsal",
    "RehearseJob",
    "RunJob",
    "Shapes",
    "ShapesByRun",
]

Shapes = Mapping[str, tuple[int, ...]]
"""One shape for each input, by name."""
ShapesByRun = Mapping[str, Shapes]


class EventKind(StrEnum):
    """What a child says; `data` of an event depends on it."""

    ERROR = "error"
    """An EnginesmithError: `class`, `what`, `where`, `why`, `remedy`, `reason`."""
    RESULT = "result"
    """The job's result record."""
    STARTED = "started"
    """A run began: `run`."""
    RAN = "ran"
    """A run ended well: `run`, `seconds`, `bytes` (of its stored inputs and outputs)."""
    REFUSED = "refused"
    """The model refused a run: `run`, `message`."""
    OUT_OF_MEMORY = "outOfMemory"
    """A run needed more than its budget: `run`."""
    NOT_LOADED = "notLoaded"
    """ONNX Runtime cannot run this model at all: `message`, `missing` (whether operators are unknown to it)."""


class Event(Record):
    """One line of a child's answer."""

    kind: EventKind
    data: JsonValue = None


class Feed(Record):
    """How a model is run in ONNX Runtime: what its inputs are filled with, and in which arithmetic.

    Attributes:
        values: the user's wishes, with local paths in place of URIs.
        index_bounds: for inputs that index a table: the table's size, so that a random id stays inside.
        emulated: whether FP16 and BF16 are computed in FP32 and rounded, see `emulation`.
    """

    facts: ModelFacts
    values: Mapping[str, InputValues] = {}
    index_bounds: Mapping[str, int] = {}
    emulated: bool = False


class InspectJob(Record):
    """Check a model and say what is known of it without running it.

    Attributes:
        keep: `precision.keep`, each entry of which has to name a node.
    """

    job: Literal["inspect"] = "inspect"
    model: str
    keep: tuple[str, ...] = ()


class Inspection(Record):
    """What the check found. A model that cannot be used ends in an error instead.

    Attributes:
        own_precisions: FP16 and BF16, where nodes of the model compute in them.
        needs_emulation: whether ONNX Runtime on a CPU can run the model in emulation only (BF16).
    """

    facts: ModelFacts
    index_bounds: Mapping[str, int] = {}
    advice: tuple[Advice, ...] = ()
    warnings: tuple[str, ...] = ()
    structure_digest: str
    own_precisions: tuple[Precision, ...] = ()
    needs_emulation: bool = False


class RunJob(Record):
    """Run the model once for each entry of `runs`.

    Attributes:
        folder: receives `<run>.npz` with inputs and outputs; None: nothing is kept.
        memory_bytes: what the runs may take on top of the idle process.
    """

    job: Literal["run"] = "run"
    model: str
    feed: Feed
    runs: ShapesByRun
    folder: str | None = None
    memory_bytes: int


class ProbeJob(Record):
    """Find one open dimension whose change makes a refused shape work."""

    job: Literal["probe"] = "probe"
    model: str
    feed: Feed
    shapes: Shapes
    memory_bytes: int


class BatchJob(Record):
    """Show or deny f(a then b) = f(a) then f(b), a and b being filled with different values."""

    job: Literal["batch"] = "batch"
    model: str
    feed: Feed
    first: Shapes
    second: Shapes
    memory_bytes: int


class RangeJob(Record):
    """Find nodes whose values leave FP16's range in one run of the model.

    Attributes:
        run: seeds the values, as in the `RunJob` of the same name.
        small: whether values that are all too small count as well.
    """

    job: Literal["range"] = "range"
    model: str
    feed: Feed
    run: str
    shapes: Shapes
    small: bool
    memory_bytes: int


class RehearseJob(Record):
    """Run a cast model in emulated FP16 and hold its outputs against those of the source.

    Attributes:
        runs: what to run; `folder` has inputs and FP32 outputs of each as `<run>.npz`.
    """

    job: Literal["rehearse"] = "rehearse"
    model: str
    feed: Feed
    runs: ShapesByRun
    folder: str
    memory_bytes: int


class Rehearsal(Record):
    """What emulated FP16 showed.

    Attributes:
        keep: nodes that make NaN or infinity of numbers where the source does not, with the reason.
        differences: the largest max|a-b| / max|b| of each output over the runs; outputs with NaN or infinity that the
            source has not are infinite.
    """

    keep: Mapping[str, str] = {}
    differences: Mapping[str, float] = {}


class CastJob(Record):
    """Write the model with the arithmetic that the policy asks for.

    Attributes:
        output: an empty folder that receives the cast model.
        keep: nodes that stay in FP32 in addition to the policy's, by name, with the reason.
    """

    job: Literal["cast"] = "cast"
    model: str
    output: str
    policy: PrecisionPolicy
    keep: Mapping[str, str] = {}


class CastResult(Record):
    """Files relative to the output folder, the ONNX file first; and what stayed in FP32."""

    files: tuple[str, ...]
    kept: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()
    structure_digest: str


AnyJob = InspectJob | RunJob | ProbeJob | BatchJob | RangeJob | RehearseJob | CastJob
