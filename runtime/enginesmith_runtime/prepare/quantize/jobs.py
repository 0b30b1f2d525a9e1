"""What the children are asked that calibrate and quantise, and what they answer."""

from collections.abc import Mapping
from typing import Literal

from enginesmith_contract.auto_keep import AutoKeepResult
from enginesmith_contract.backends import PrecisionPolicy
from enginesmith_contract.calibration import AutoKeep, Calibration
from enginesmith_contract.preprocess import Preprocess
from enginesmith_contract.profiles import Profile
from enginesmith_contract.record import Record
from enginesmith_contract.verification import FirstFall, VerificationPolicy
from enginesmith_runtime.prepare.jobs import Feed

__all__ = [
    "AutoKeepJob",
    "CalibrateJob",
    "Calibrated",
    "Data",
    "QuantizeJob",
    "Quantized",
    "SampleRun",
    "SampleRuns",
    "SamplesJob",
]


class Data(Record):
    """Calibration data on the local disk.

    Attributes:
        path: of the folder or file.
        calibration: how it is used.
        profiles: that a sample must fit.
        preprocess: normalisation of images that the model's inputs are the pixels of.
        batched: whether the rows of a batch are known not to change each other.
    """

    path: str
    calibration: Calibration
    profiles: tuple[Profile, ...]
    preprocess: tuple[Preprocess, ...] = ()
    batched: bool


class CalibrateJob(Record):
    """Write the normal form of a model and the histograms of its tensors over the calibration data.

    Attributes:
        output: an empty folder for both.
        known: path of histograms that were collected before; None: collect them.
    """

    job: Literal["calibrate"] = "calibrate"
    model: str
    output: str
    feed: Feed
    data: Data
    known: str | None = None
    memory_bytes: int


class Calibrated(Record):
    """What a calibration wrote.

    Attributes:
        model: file of the normal form in the output folder.
        histograms: path of the histograms.
        sources: nodes of the source that each node of the normal form stands for.
        held_out: names of the samples that judge the result.
        input_ranges: smallest and largest value of each float input over the calibration data.
        beyond_fp16: nodes of the normal form that make or read values outside FP16's range, with what was seen.
    """

    model: str
    histograms: str
    sources: Mapping[str, tuple[str, ...]]
    held_out: tuple[str, ...]
    input_ranges: Mapping[str, tuple[float, float]]
    beyond_fp16: Mapping[str, str] = {}


class QuantizeJob(Record):
    """Quantise a normal form, once for TensorRT and once for ONNX Runtime.

    Attributes:
        source: path of the source model, whose nodes `policy.keep` names.
        model: path of the normal form.
        cast: path of the normal form in FP16, which TensorRT gets.
        sources: as of `Calibrated`.
        histograms: path of the histograms.
        output: an empty folder that receives a folder for each of the two.
        found: what a search found; None: there was none.
    """

    job: Literal["quantize"] = "quantize"
    source: str
    model: str
    cast: str
    sources: Mapping[str, tuple[str, ...]]
    histograms: str
    output: str
    policy: PrecisionPolicy
    found: AutoKeepResult | None = None


class AutoKeepJob(Record):
    """Search for nodes of a normal form that are not quantised.

    Attributes:
        source, model, sources, histograms: as of `QuantizeJob`.
        bounds: of the search.
        folder: an empty folder for references.
        limit: default limit of outputs that are measures, as a ratio.
    """

    job: Literal["autoKeep"] = "autoKeep"
    source: str
    model: str
    sources: Mapping[str, tuple[str, ...]]
    histograms: str
    policy: PrecisionPolicy
    bounds: AutoKeep
    verification: VerificationPolicy
    limit: float
    feed: Feed
    data: Data
    folder: str
    memory_bytes: int


class Quantized(Record):
    """Files relative to the output, the ONNX file first; nodes that are not quantised, with the reason.

    `onnxruntime` is empty where ONNX Runtime takes the same model. `quantised` has the nodes that compute in 8 bits in
    the model for TensorRT, and `kept` those of it that do not.
    """

    tensorrt: tuple[str, ...]
    onnxruntime: tuple[str, ...]
    kept: Mapping[str, str] = {}
    onnxruntime_kept: Mapping[str, str] = {}
    quantised: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    structure_digest: str


class SamplesJob(Record):
    """Run the source model on held-out samples, keep inputs and outputs of each, and look where a quantised one fails.

    Attributes:
        normal: path of the normal form.
        quantized: path of the quantised model.
        onnxruntime: path of the one for ONNX Runtime; None: it takes `quantized`.
        names: of the samples, in the order in which they are run.
        folder: receives one .npz for each.
        most_bytes: of all files.
    """

    job: Literal["samples"] = "samples"
    model: str
    normal: str
    quantized: str
    onnxruntime: str | None = None
    feed: Feed
    data: Data
    names: tuple[str, ...]
    folder: str
    most_bytes: int
    memory_bytes: int


class SampleRun(Record):
    """A sample that was run: its name, the profile that has its shapes, and its file in the folder."""

    name: str
    profile: str
    file: str


class SampleRuns(Record):
    """What held-out samples showed: their runs, and the first tensor whose SQNR falls in each model (None: none)."""

    runs: tuple[SampleRun, ...]
    first_fall: FirstFall | None = None
    onnxruntime_first_fall: FirstFall | None = None
