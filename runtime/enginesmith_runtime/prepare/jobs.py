"""Jobs and results of the preparation's child processes.

The preparing process itself never reads a user's model, because libraries that parse and run models can crash, fill the
memory and cannot be interrupted. Each step is one job for `enginesmith_runtime.prepare.worker`, which reports events.
The parent keeps the events that it received before a child died.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from pydantic import JsonValue

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.preparation import Advice, Refusal
from enginesmith_contract.preprocess import Preprocess
from enginesmith_contract.record import Record
from enginesmith_contract.tensors import ModelFacts
from enginesmith_contract.verification import InputValues

__all__ = [
    "AnyJob",
    "BatchJob",
    "CastJob",
    "CastResult",
    "Change",
    "Event",
    "EventKind",
    "Feed",
    "InspectJob",
    "Inspection",
    "OtherSize",
    "OtherValues",
    "PreprocessJob",
    "ProbeJob",
    "RangeJob",
    "Rehearsal",
    "RehearseJob",
    "RoundingJob",
    "RunJob",
    "Shapes",
    "ShapesByRun",
    "Sweep",
    "SweepJob",
    "Values",
]

Shapes = Mapping[str, tuple[int, ...]]
"""One shape for each input, by name."""
ShapesByRun = Mapping[str, Shapes]
Values = Mapping[str, tuple[int, ...]]
"""The elements of each input whose profile has values, by name."""


class EventKind(StrEnum):
    """Kind of an event, which determines its `data`."""

    ERROR = "error"
    """A `ChildFailure`."""
    RESULT = "result"
    """The job's result record."""
    PROGRESS = "progress"
    """The completed share of the job: a number from 0 to 1."""
    STARTED = "started"
    """A run began: `run`."""
    RAN = "ran"
    """A run succeeded: `run`, `seconds`, `bytes` (of its stored inputs and outputs), `answer` (bytes of a response with
    its outputs), `shapes` (of its outputs), `nan` (outputs that contain only NaN)."""
    VARIED = "varied"
    """A run was repeated with the same inputs: `output` (the differing output, or empty), `runs` (number of runs)."""
    REFUSED = "refused"
    """The model refused a run: `run`, `message`."""
    OUT_OF_MEMORY = "outOfMemory"
    """A run needed more than its budget: `run`."""
    NOT_LOADED = "notLoaded"
    """ONNX Runtime cannot run this model: `message`, `missing` (whether it does not know an operator)."""


class Event(Record):
    """One line of a child's output."""

    kind: EventKind
    data: JsonValue = None


class Feed(Record):
    """How a model is run in ONNX Runtime: the values of its inputs, and the arithmetic.

    Attributes:
        values: Input values of the user, with local paths instead of URIs.
        index_bounds: Table sizes of inputs that index a table, so that random ids are valid.
        given: Elements of inputs that hold sizes, by name, in row-major order. The profile has them for each point.
        emulated: Whether FP16 and BF16 are computed in FP32 and rounded; see `emulation`.
        threads: Number of threads inside a node; 0 for ONNX Runtime's default. 1 if more would lose updates; see
            `scatters`.
    """

    facts: ModelFacts
    values: Mapping[str, InputValues] = {}
    index_bounds: Mapping[str, int] = {}
    given: Mapping[str, tuple[int, ...]] = {}
    emulated: bool = False
    threads: int = 0

    def at(self, given: Values) -> "Feed":
        """Return the feed of a point with these elements of inputs that hold sizes."""
        return self.model_copy(update={"given": given}) if given else self


class InspectJob(Record):
    """Check a model and return its facts without running it.

    Attributes:
        output: Empty folder for a copy of the model with weights that every reader supports, or with a normalisation.
        keep: `precision.keep`. Each entry must match a node.
        preprocess: Normalisation of image inputs that the copy has.
    """

    job: Literal["inspect"] = "inspect"
    model: str
    output: str
    keep: tuple[str, ...] = ()
    preprocess: tuple[Preprocess, ...] = ()


class Inspection(Record):
    """Result of the check. For an unusable model the job fails instead.

    Attributes:
        files: Files of the copy in the job's output folder, the ONNX file first. Empty if the model is used unchanged.
        original: Facts of the model before its normalisation; None if there is no normalisation.
        unranked: Names of outputs whose rank only a run determines. Their shape in `facts` is undefined.
        refusals: Nodes that no TensorRT builder accepts.
        random: Nodes with results that differ from run to run, as text, each with its fix.
        losing: Nodes that lose updates with several threads, as text.
        unordered: Nodes with results that depend on the order of threads if indices repeat, as text.
        mixing: Nodes that are not known to process the rows of a batch separately, as text.
        own_precisions: Precisions among FP16, BF16, INT8 and FP8 that the model itself computes in.
        needs_emulation: Whether ONNX Runtime on a CPU can run the model only in emulation (BF16).
    """

    files: tuple[str, ...] = ()
    facts: ModelFacts
    original: ModelFacts | None = None
    unranked: tuple[str, ...] = ()
    index_bounds: Mapping[str, int] = {}
    advice: tuple[Advice, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    random: Mapping[str, str] = {}
    losing: tuple[str, ...] = ()
    unordered: tuple[str, ...] = ()
    mixing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    structure_digest: str
    own_precisions: tuple[Precision, ...] = ()
    needs_emulation: bool = False


class RunJob(Record):
    """Run the model once for each entry of `runs`.

    Attributes:
        given: `Feed.given` of each run that has it.
        folder: Folder that receives `<run>.npz` with inputs and outputs; None to keep nothing.
        memory_bytes: Memory limit of the runs in bytes, beyond the idle process.
        repeats: Number of repetitions of the first run with the same inputs, which check that the outputs are equal.
    """

    job: Literal["run"] = "run"
    model: str
    feed: Feed
    runs: ShapesByRun
    given: Mapping[str, Values] = {}
    folder: str | None = None
    memory_bytes: int
    repeats: int = 0


class ProbeJob(Record):
    """Find one change that makes a refused run work: of the values of an input, or of the size of an open dimension.

    Attributes:
        run: The refused run. Its values are used for everything that is not changed.
    """

    job: Literal["probe"] = "probe"
    model: str
    feed: Feed
    run: str
    shapes: Shapes
    memory_bytes: int


class OtherSize(Record):
    """One dimension of an input with a size that works instead of the refused one."""

    input: str
    axis: int
    size: int


class OtherValues(Record):
    """Values of inputs that work with the same shapes instead of the refused ones."""

    inputs: tuple[str, ...]
    values: InputValues


Change = OtherSize | OtherValues
"""Result of a `ProbeJob`."""


class BatchJob(Record):
    """Prove or disprove f(a then b) = f(a) then f(b) for a and b with different values.

    Each result replaces the one before. The first one is sent when the claim is proved for ordinary values.

    Attributes:
        first: Shapes of a.
        second: Shapes of b.
        largest: Shapes of a b that fills the profile's largest batch; None if `second` does.
        seconds: Time limit of the trials with extreme values.
    """

    job: Literal["batch"] = "batch"
    model: str
    feed: Feed
    first: Shapes
    second: Shapes
    largest: Shapes | None = None
    memory_bytes: int
    seconds: float


class PreprocessJob(Record):
    """Compare a model that has a normalisation with the original model.

    Attributes:
        original: The model as it was fetched.
        original_facts: Facts of that model.
        entries: The normalisation.
        feed: Feed of the new model.
        runs: Runs of the model. `folder` has inputs and outputs of each as `<run>.npz`.
        output: Folder for a small model.
    """

    job: Literal["preprocess"] = "preprocess"
    original: str
    original_facts: ModelFacts
    entries: tuple[Preprocess, ...]
    feed: Feed
    runs: tuple[str, ...]
    folder: str
    output: str
    memory_bytes: int


class RangeJob(Record):
    """Find nodes whose values leave FP16's range in one run of the model.

    Attributes:
        run: Seed of the values, as in the `RunJob` of the same name.
        small: Whether tensors whose values are all too small count as well.
    """

    job: Literal["range"] = "range"
    model: str
    feed: Feed
    run: str
    shapes: Shapes
    small: bool
    memory_bytes: int


class _RunAgainJob(Record):
    """Repetition of earlier runs, whose outputs are compared.

    Attributes:
        runs: Runs to repeat. `folder` has inputs and outputs of each as `<run>.npz`.
        given: See `RunJob`.
    """

    model: str
    feed: Feed
    runs: ShapesByRun
    given: Mapping[str, Values] = {}
    folder: str
    memory_bytes: int


class RehearseJob(_RunAgainJob):
    """Run a model that was cast to `precision`, in emulated arithmetic, and compare its outputs with the source's.

    The stored outputs are FP32 ones.
    """

    job: Literal["rehearse"] = "rehearse"
    precision: Precision


class Rehearsal(Record):
    """Result of a run in emulated arithmetic.

    Attributes:
        keep: Nodes that produce NaN or infinity from numbers while the source does not, with the reason.
        differences: Largest max|a-b| / max|b| of each output over the runs; infinite if only it has NaN or infinity.
    """

    keep: Mapping[str, str] = {}
    differences: Mapping[str, float] = {}


class SweepJob(Record):
    """Run a model in FP32 and its cast in emulated arithmetic with many kinds of values.

    Attributes:
        cast: The model in the other precision.
        precision: FP16 or BF16.
        run: Seed of the ordinary values.
        kept: Nodes that already stay in FP32.
        expected: Largest difference on the reference inputs.
        attempt: Number of earlier attempts that kept nodes. The last attempt keeps all nodes.
        seconds: Time limit of all runs.
    """

    job: Literal["sweep"] = "sweep"
    model: str
    cast: str
    precision: Precision
    feed: Feed
    run: str
    shapes: Shapes
    kept: tuple[str, ...]
    expected: float
    attempt: int
    memory_bytes: int
    seconds: float


class Sweep(Record):
    """Result of a sweep: nodes that must stay in FP32, with the reason, and warnings."""

    keep: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()


class RoundingJob(_RunAgainJob):
    """Run a model with changed last bits of its inputs and weights, and compare its outputs with the stored ones.

    The result is the largest difference of each float output by name.
    """

    job: Literal["rounding"] = "rounding"


class CastJob(Record):
    """Write the model with the arithmetic of the policy.

    Attributes:
        output: Empty folder that receives the cast model.
        keep: Additional nodes that stay in FP32, by name, with the reason.
        tried: Nodes that also stay in FP32, but whose results may be read in FP16.
        open_inputs: Inputs of the graph that may hold values of any size.
        limits: Smallest and largest value of inputs with known limits.
        generated: Numeric inputs that the user has not described.
    """

    job: Literal["cast"] = "cast"
    model: str
    output: str
    policy: PrecisionPolicy
    keep: Mapping[str, str] = {}
    tried: Mapping[str, str] = {}
    open_inputs: tuple[str, ...] = ()
    limits: Mapping[str, tuple[float, float]] = {}
    generated: tuple[str, ...] = ()


class CastResult(Record):
    """Files relative to the output folder (the ONNX file first), nodes that stayed in FP32, and those in `warnings`."""

    files: tuple[str, ...]
    kept: Mapping[str, str] = {}
    said: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    structure_digest: str


AnyJob = (
    InspectJob
    | RunJob
    | PreprocessJob
    | ProbeJob
    | BatchJob
    | RangeJob
    | RehearseJob
    | RoundingJob
    | SweepJob
    | CastJob
)
