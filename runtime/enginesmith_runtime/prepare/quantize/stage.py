"""Quantises one model: one calibration for all GPUs, and one placement for each family of backends.

normal form and histograms ──> FP16 ──> Q/DQ ──> try in ONNX Runtime ──> references of the held-out samples
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enginesmith_contract.auto_keep import AutoKeepResult
from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.calibration import Calibration
from enginesmith_contract.errors import ModelError
from enginesmith_contract.keys import HistogramKeyInputs, histogram_key
from enginesmith_contract.limits import Arithmetic
from enginesmith_contract.preparation import PreparationRequest, ReferenceKind, ReferenceSet
from enginesmith_contract.profiles import Profile
from enginesmith_contract.store_layout import HistogramsPointer, StoredFile, histograms_pointer
from enginesmith_contract.verification import FirstFall, InputValues
from enginesmith_runtime.child_processes import ChildEnd, Limits, Outcome
from enginesmith_runtime.fetch.data import FetchedData
from enginesmith_runtime.prepare.child import Do, Job
from enginesmith_runtime.prepare.fp16.cast import kept_lines
from enginesmith_runtime.prepare.fp16.cast_stage import CastStage, Prepared, try_prepared
from enginesmith_runtime.prepare.jobs import Feed
from enginesmith_runtime.prepare.quantize.jobs import (
    AutoKeepJob,
    Calibrated,
    CalibrateJob,
    Data,
    Quantized,
    QuantizeJob,
    SampleRuns,
    SamplesJob,
)
from enginesmith_runtime.prepare.runs.exercise import Exercised
from enginesmith_runtime.prepare.runs.points import Budget
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.records import read_record

__all__ = ["QuantizeStage", "QuantizedModel"]

# Time of a large model at a large shape. Only a hang takes longer.
_SAMPLE_SECONDS: Final = 30.0
_LATE_SECONDS: Final = 600.0
MOST_SAMPLE_BYTES: Final = 128 << 20
"""Size limit of all held-out samples and outputs of a preparation. Every build and every first server reads them."""


@dataclass(frozen=True, kw_only=True)
class QuantizedModel(Prepared):
    """A quantised model.

    Attributes:
        onnxruntime: Stored files for ONNX Runtime; None if it uses the same files.
        auto_keep: Result of the search for nodes to keep; None if it was not requested.
        samples: Stored held-out samples with the outputs of the source.
        first_fall: First tensor whose SQNR falls on them; None if no SQNR falls.
        onnxruntime_kept: Kept nodes in the files for ONNX Runtime.
        onnxruntime_first_fall: First tensor whose SQNR falls in the files for ONNX Runtime.
        tensorrt_warnings: Warnings that apply to `files` but not to the files for ONNX Runtime.
    """

    onnxruntime: tuple[StoredFile, ...] | None
    auto_keep: AutoKeepResult | None
    samples: tuple[ReferenceSet, ...]
    onnxruntime_kept: Mapping[str, str] | None
    first_fall: FirstFall | None
    onnxruntime_first_fall: FirstFall | None
    tensorrt_warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class QuantizeStage:
    """One quantisation.

    Attributes:
        model: The source model.
        request: Request of the preparation.
        source_digest: Digest of the fetched source.
        calibration: How `data` is used.
        data: Fetched data.
        batched: Whether the batching proof succeeded.
        feed: Feed of the source.
        profiles: Complete profiles.
        exercised: Points with inputs and FP32 outputs in the folder `runs`.
        budget: Budget of the runs on reference inputs.
        folder: Folder of the whole preparation.
        store: Store that receives histograms, samples and the additional model.
        ask: Function that runs a job within limits and returns its result or None.
        do: Function that runs a job that must give a result.
        tick: Function that often receives the completed share of the work.
    """

    model: Path
    request: PreparationRequest
    source_digest: str
    calibration: Calibration
    data: FetchedData
    batched: bool
    feed: Feed
    profiles: tuple[Profile, ...]
    exercised: Exercised
    budget: Budget
    folder: Path
    store: Store
    ask: Callable[[Job, Path, Limits], tuple[object, ChildEnd]]
    do: Do
    tick: Callable[[float], None]

    def run(self) -> QuantizedModel:
        """Calibrate, quantise, try.

        Raises:
            enginesmith_contract.errors.ModelError: The data cannot be used, or a step did not finish.
            enginesmith_contract.errors.StoreError: The store failed.
        """
        calibrated = self._calibrate()
        normal = self.folder / "calibrate"
        cast = self._cast(normal / calibrated.model, calibrated)
        found = self._search(calibrated, normal / calibrated.model)
        output = _empty(self.folder, "quantized")
        job = QuantizeJob(
            source=str(self.model),
            model=str(normal / calibrated.model),
            cast=str(cast.files[0]),
            sources=calibrated.sources,
            histograms=calibrated.histograms,
            output=str(output),
            policy=self.request.precision,
            found=found,
        )
        quantized = Quantized.model_validate(self.do(job, "quantize"))
        tensorrt = tuple(output / name for name in quantized.tensorrt)
        onnxruntime = tuple(output / name for name in quantized.onnxruntime)
        for file in (*tensorrt[:1], *onnxruntime[:1]):
            try_prepared(file, self.feed, self.exercised, self.budget, self.folder, self.tick)
        samples, runs = self._run_samples(calibrated, normal / calibrated.model, (*tensorrt[:1], *onnxruntime[:1]))
        lines = tuple(_without(cast, quantized.quantised))
        in_fp32 = {name: reason for name, reason in cast.kept.items() if name not in quantized.quantised}
        return QuantizedModel(
            folder=tensorrt[0].parent,
            files=tensorrt,
            onnxruntime=self.store.put_files(onnxruntime[0].parent, onnxruntime) if onnxruntime else None,
            structure_digest=quantized.structure_digest,
            kept={**in_fp32, **quantized.kept},
            auto_keep=found,
            samples=samples,
            onnxruntime_kept=quantized.onnxruntime_kept if onnxruntime else None,
            first_fall=runs.first_fall,
            onnxruntime_first_fall=runs.onnxruntime_first_fall,
            warnings=(*quantized.warnings, *(() if onnxruntime else lines)),
            tensorrt_warnings=lines if onnxruntime else (),
        )

    def _cast(self, normal: Path, calibrated: Calibrated) -> Prepared:
        """Cast nodes that are not quantised to FP16. Nodes of `precision.keep` are also cast.

        The calibration data gives the ranges of inputs, like `verification.inputs` for other precisions.
        """
        stage = CastStage(
            model=normal,
            policy=PrecisionPolicy(default=Precision.FP16),
            feed=self.feed,
            exercised=self.exercised,
            budget=self.budget,
            folder=self.folder,
            ask=self.ask,
            do=self.do,
            tick=self.tick,
            seen={name: InputValues(range=values) for name, values in calibrated.input_ranges.items()},
            beyond=calibrated.beyond_fp16,
            most_sweeps=0,
        )
        return stage.run()

    def _search(self, calibrated: Calibrated, normal: Path) -> AutoKeepResult | None:
        """Search for nodes to keep if the spec requests it."""
        bounds = self.request.precision.auto_keep
        if isinstance(bounds, bool):
            return None
        job = AutoKeepJob(
            source=str(self.model),
            model=str(normal),
            sources=calibrated.sources,
            histograms=calibrated.histograms,
            policy=self.request.precision,
            bounds=bounds,
            verification=self.request.verification,
            limit=Arithmetic(precision=self.request.precision).limit,
            feed=self.feed,
            data=self._described_data,
            folder=str(_empty(self.folder, "search")),
            memory_bytes=self.budget.memory_bytes,
        )
        # A slow model ends its last trial late.
        limits = Limits(seconds=2 * bounds.timeout_seconds + _LATE_SECONDS)
        result, end = self.ask(job, self.folder / "search", limits)
        if end.outcome is not Outcome.FINISHED or result is None:
            raise ModelError(
                "the search for nodes to keep did not finish",
                where="precision.autoKeep",
                why=f"{end.outcome.value} {end.detail}".strip(),
                remedy="set a longer timeout, give it more memory, or name the nodes in precision.keep",
                reason="PreparationCrashed",
            )
        return AutoKeepResult.model_validate(result)

    def _calibrate(self) -> Calibrated:
        output = _empty(self.folder, "calibrate")
        pointer = histograms_pointer(histogram_key(self._histogram_inputs))
        self.store.refresh_pointer(pointer)
        stored = read_record(self.store, pointer, HistogramsPointer)
        known = None if stored is None else str(self.store.get_files([stored.file], self.folder / "histograms"))
        job = CalibrateJob(
            model=str(self.model),
            output=str(output),
            feed=self.feed,
            data=self._described_data,
            known=known,
            memory_bytes=self.budget.memory_bytes,
        )
        calibrated = Calibrated.model_validate(self.do(job, "calibrate", more_seconds=self._run_seconds))
        if stored is None:
            (file,) = self.store.put_files(output, [Path(calibrated.histograms)])
            self.store.create_pointer(pointer, HistogramsPointer(file=file).to_json())
        return calibrated

    @property
    def _histogram_inputs(self) -> HistogramKeyInputs:
        return HistogramKeyInputs(
            source_digest=self.source_digest,
            calibration_digest=self.data.digest,
            calibration=self.calibration.of_histograms,
            profiles=self.profiles,
            batched=self.batched,
            preprocess=self.request.preprocess,
        )

    @property
    def _run_seconds(self) -> float:
        """Longest time of a run on all samples."""
        return _SAMPLE_SECONDS * self.calibration.max_samples

    @property
    def _described_data(self) -> Data:
        return Data(
            path=str(self.data.path),
            calibration=self.calibration,
            profiles=self.profiles,
            preprocess=self.request.preprocess or (),
            batched=self.batched,
        )

    def _run_samples(
        self, calibrated: Calibrated, normal: Path, quantized: tuple[Path, ...]
    ) -> tuple[tuple[ReferenceSet, ...], SampleRuns]:
        folder = _empty(self.folder, "samples")
        job = SamplesJob(
            model=str(self.model),
            normal=str(normal),
            quantized=str(quantized[0]),
            onnxruntime=str(quantized[1]) if quantized[1:] else None,
            feed=self.feed,
            data=self._described_data,
            names=calibrated.held_out,
            folder=str(folder),
            most_bytes=MOST_SAMPLE_BYTES,
            memory_bytes=self.budget.memory_bytes,
        )
        found = SampleRuns.model_validate(self.do(job, "samples", more_seconds=self._run_seconds))
        files = self.store.put_files(folder, [folder / run.file for run in found.runs])
        references = tuple(
            ReferenceSet(profile=run.profile, point=run.name, file=file, kind=ReferenceKind.SAMPLE)
            for run, file in zip(found.runs, files, strict=True)
        )
        return references, found


def _without(cast: Prepared, quantised: Collection[str]) -> Iterator[str]:
    """Yield the warnings of a cast except those for nodes that compute in 8 bits."""
    lines = frozenset(kept_lines({name: cast.kept[name] for name in cast.said}))
    yield from (line for line in cast.warnings if line not in lines)
    yield from kept_lines({name: cast.kept[name] for name in cast.said if name not in quantised})


def _empty(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder
