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
    """What a child says; `data` of an event depends on it."""

    ERROR = "error"
    """A `ChildFailure`."""
    RESULT = "result"
    """The job's result record."""
    PROGRESS = "progress"
    """A share of the job is done: a number from 0 to 1."""
    STARTED = "started"
    """A run began: `run`."""
    RAN = "ran"
    """A run ended well: `run`, `seconds`, `bytes` (of its stored inputs and outputs), `answer` (bytes of its outputs as
    they travel), `shapes` (of its outputs), `nan` (outputs that are NaN throughout)."""
    VARIED = "varied"
    """A run was repeated with the same inputs: `output` differed, empty where none did; `runs` (how many)."""
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
        given: elements of inputs that hold sizes, by name, in row-major order; the profile says them for each point.
        emulated: whether FP16 and BF16 are computed in FP32 and rounded, see `emulation`.
        threads: of ONNX Runtime inside a node; 0: its own choice. One where more lose updates, see `scatters`.
    """

    facts: ModelFacts
    values: Mapping[str, InputValues] = {}
    index_bounds: Mapping[str, int] = {}
    given: Mapping[str, tuple[int, ...]] = {}
    emulated: bool = False
    threads: int = 0

    def at(self, given: Values) -> "Feed":
        """Return the feed of a point at which inputs that hold sizes have these elements."""
        return self.model_copy(update={"given": given}) if given else self


class InspectJob(Record):
    """Check a model and say what is known of it without running it.

    Attributes:
        output: an empty folder, for a copy of the model with weights that every reader takes, or with a normalisation.
        keep: `precision.keep`, each entry of which has to name a node.
        preprocess: normalisation of image inputs that the copy has.
    """

    job: Literal["inspect"] = "inspect"
    model: str
    output: str
    keep: tuple[str, ...] = ()
    preprocess: tuple[Preprocess, ...] = ()


class Inspection(Record):
    """What the check found. A model that cannot be used ends in an error instead.

    Attributes:
        files: of the copy in the job's output folder, the ONNX file first; empty: the model is used as it is.
        original: facts of the model before its normalisation; None: it has none.
        unranked: names of outputs whose rank only a run tells; their shape in `facts` means nothing.
        refusals: nodes that no TensorRT builder takes.
        random: nodes whose answers differ from run to run, as text, each with its fix.
        losing: nodes that lose updates on several threads, as text.
        unordered: nodes whose result depends on the order of threads where indices repeat, as text.
        mixing: nodes that are not known to keep the rows of a batch apart, as text.
        own_precisions: of FP16, BF16, INT8 and FP8 those that the model itself computes in.
        needs_emulation: whether ONNX Runtime on a CPU can run the model in emulation only (BF16).
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
        given: `Feed.given` of each run that has any.
        folder: receives `<run>.npz` with inputs and outputs; None: nothing is kept.
        memory_bytes: what the runs may take on top of the idle process.
        repeats: how often the first run is repeated with the same inputs, to see whether the answers are the same.
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
    """Find one input whose values, or one open dimension whose size, makes a refused run work when changed.

    Attributes:
        run: the refused run, whose values are used where nothing is changed.
    """

    job: Literal["probe"] = "probe"
    model: str
    feed: Feed
    run: str
    shapes: Shapes
    memory_bytes: int


class OtherSize(Record):
    """One dimension of an input, with a size that works where another was refused."""

    input: str
    axis: int
    size: int


class OtherValues(Record):
    """Values of inputs that work, at the same shapes, where others were refused."""

    inputs: tuple[str, ...]
    values: InputValues


Change = OtherSize | OtherValues
"""What a `ProbeJob` finds."""


class BatchJob(Record):
    """Show or deny f(a then b) = f(a) then f(b), a and b being filled with different values.

    Every result takes the place of the one before: the first comes once the claim is shown for ordinary values.

    Attributes:
        first: shapes of a.
        second: shapes of b.
        largest: shapes of a b that fills the profile's largest batch; None: `second` does.
        seconds: what the trials with extreme values may take.
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
    """Hold a model with its normalisation against the original model.

    Attributes:
        original: the model as it was fetched.
        original_facts: of that model.
        entries: the normalisation.
        feed: how the new model is run.
        runs: what was run; `folder` has inputs and outputs of each as `<run>.npz`.
        output: a folder for a small model.
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


class _RunAgainJob(Record):
    """Runs that were made before, whose outputs are compared.

    Attributes:
        runs: what to run; `folder` has inputs and outputs of each as `<run>.npz`.
        given: as of `RunJob`.
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
    """What emulated arithmetic showed.

    Attributes:
        keep: nodes that make NaN or infinity of numbers where the source does not, with the reason.
        differences: the largest max|a-b| / max|b| of each output over the runs; outputs with NaN or infinity that the
            source has not are infinite.
    """

    keep: Mapping[str, str] = {}
    differences: Mapping[str, float] = {}


class SweepJob(Record):
    """Run a model in FP32 and its cast in emulated arithmetic with values of many kinds.

    Attributes:
        cast: the model in the other precision.
        precision: FP16 or BF16.
        run: seeds the ordinary values.
        kept: nodes that stay in FP32 already.
        expected: the largest difference on the reference inputs.
        attempt: how often nodes were kept before; the last one keeps all.
        seconds: of all runs.
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
    """What a sweep showed: nodes that have to stay in FP32, with the reason, and what else there is to say."""

    keep: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()


class RoundingJob(_RunAgainJob):
    """Run a model with other last bits of its inputs and weights, and hold its outputs against those of before.

    The result is the largest difference of each float output by its name.
    """

    job: Literal["rounding"] = "rounding"


class CastJob(Record):
    """Write the model with the arithmetic that the policy asks for.

    Attributes:
        output: an empty folder that receives the cast model.
        keep: nodes that stay in FP32 in addition to the policy's, by name, with the reason.
        tried: nodes that stay in FP32 as well, whose results may be read in FP16.
        open_inputs: inputs of the graph that may hold values of any size.
        limits: the smallest and the largest value of the inputs that have them.
        generated: inputs of numbers that the user has not described.
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
    """Files relative to the output folder, the ONNX file first; what stayed in FP32, and what of it `warnings` name."""

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
