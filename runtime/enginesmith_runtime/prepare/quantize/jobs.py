"""Jobs and results of the child processes that calibrate and quantise."""

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
        path: Path of the folder or file.
        calibration: How the data is used.
        profiles: Profiles, one of which a sample must fit.
        preprocess: Normalisation in the model, whose inputs are then pixels.
        batched: Whether the rows of a batch are known to be independent.
    """

    path: str
    calibration: Calibration
    profiles: tuple[Profile, ...]
    preprocess: tuple[Preprocess, ...] = ()
    batched: bool


class CalibrateJob(Record):
    """Write the normal form of a model and the histograms of its tensors over the calibration data.

    Attributes:
        output: Empty folder for both.
        known: Path of existing histograms; None to collect them.
    """

    job: Literal["calibrate"] = "calibrate"
    model: str
    output: str
    feed: Feed
    data: Data
    known: str | None = None
    memory_bytes: int


class Calibrated(Record):
    """Result of a calibration.

    Attributes:
        model: File of the normal form in the output folder.
        histograms: Path of the histograms.
        sources: Nodes of the source for each node of the normal form.
        held_out: Names of the samples that judge the result.
        input_ranges: Smallest and largest value of each float input over the calibration data.
        beyond_fp16: Nodes of the normal form with values out of FP16's range, with the observation.
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
        source: Path of the source model, whose nodes `policy.keep` names.
        model: Path of the normal form.
        cast: Path of the normal form in FP16 for TensorRT.
        sources: See `Calibrated`.
        histograms: Path of the histograms.
        output: Empty folder that receives a folder for each of the two.
        found: Result of the search; None if there was no search.
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
        source, model, sources, histograms: See `QuantizeJob`.
        bounds: Bounds of the search.
        folder: Empty folder for references.
        limit: Default limit of outputs that are measures, as a ratio.
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

    `onnxruntime` is empty if ONNX Runtime uses the same model. `quantised` has the nodes that compute in 8 bits in the
    model for TensorRT, and `kept` has the others.
    """

    tensorrt: tuple[str, ...]
    onnxruntime: tuple[str, ...]
    kept: Mapping[str, str] = {}
    onnxruntime_kept: Mapping[str, str] = {}
    quantised: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    structure_digest: str


class SamplesJob(Record):
    """Run the source model on held-out samples, store inputs and outputs, and find the first fall of quantised models.

    Attributes:
        normal: Path of the normal form.
        quantized: Path of the quantised model.
        onnxruntime: Path of the model for ONNX Runtime; None if it uses `quantized`.
        names: Names of the samples in the order of the runs.
        folder: Folder that receives one .npz file for each.
        most_bytes: Size limit of all files in bytes.
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
    """A sample that was run: its name, a profile with its shapes, and its file in the folder."""

    name: str
    profile: str
    file: str


class SampleRuns(Record):
    """Result for held-out samples: their runs, and the first tensor whose SQNR falls in each model (or None)."""

    runs: tuple[SampleRun, ...]
    first_fall: FirstFall | None = None
    onnxruntime_first_fall: FirstFall | None = None
