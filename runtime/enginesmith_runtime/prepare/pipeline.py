"""Prepares one model: fetch, check, exercise, batching proof, cast, references, store.

If the preparation already exists, no model library is used: fetch, digest, key, pointer. Everything else runs in child
processes (see `child`), so a cancellation ends the work within a second even in a library call, and the working folder
is removed. The pointer is written last, and the preparation exists only with it.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from enginesmith_contract.keys import PreparationKeyInputs, preparation_key
from enginesmith_contract.limits import Arithmetic, expected_differences
from enginesmith_contract.preparation import (
    Advice,
    Preparation,
    PreparationRequest,
    ReferenceSet,
    describe_refusals,
)
from enginesmith_contract.profile_checks import check_profiles, complete_profiles, profiles_refused
from enginesmith_contract.profiles import Profile
from enginesmith_contract.store_layout import StoredFile, preparation_pointer
from enginesmith_contract.verification import check_outputs
from enginesmith_runtime.child_processes import Limits, Outcome
from enginesmith_runtime.fetch.data import FetchedData
from enginesmith_runtime.fetch.model import FetchedModel, fetch_model
from enginesmith_runtime.prepare.child import WORKER, Steps
from enginesmith_runtime.prepare.fp16.cast_stage import CastStage, Prepared
from enginesmith_runtime.prepare.jobs import (
    Feed,
    Inspection,
    InspectJob,
    PreprocessJob,
    RoundingJob,
)
from enginesmith_runtime.prepare.model_file.advice import parser_advice
from enginesmith_runtime.prepare.precision import needs_cast, refuse_uncalibrated
from enginesmith_runtime.prepare.quantize.calibration_data import fetch_calibration_data
from enginesmith_runtime.prepare.quantize.stage import QuantizedModel, QuantizeStage
from enginesmith_runtime.prepare.runs.answers import check_answers
from enginesmith_runtime.prepare.runs.batching import prove_batching
from enginesmith_runtime.prepare.runs.exercise import Exercised, exercise, quick_points, unverified_lines
from enginesmith_runtime.prepare.runs.input_files import InputFiles
from enginesmith_runtime.prepare.runs.inputs import check_values, local_values
from enginesmith_runtime.prepare.runs.observed_shapes import correct_outputs
from enginesmith_runtime.prepare.runs.points import Budget
from enginesmith_runtime.prepare.runs.references import store_references
from enginesmith_runtime.prepare.warm_start import warm_worker
from enginesmith_runtime.progress import Reporter
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.records import parse_record, read_record

__all__ = ["prepare"]

_PARSER_SECONDS = 60.0
_ROUNDING_SECONDS = 60.0
# One repetition finds most random models, but a few random booleans can be equal several times.
_RANDOM_REPEATS = 8
# Number of lines about nodes that TensorRT refuses, which the operator writes to its status.
_SAID_REFUSALS = 4
# One run is not enough to know the ranges of outputs.
_LEAST_RUNS = 3


def prepare(
    request: PreparationRequest,
    store: Store,
    work: Path,
    reporter: Reporter,
    *,
    base: Path | None = None,
    downloads: Path | None = None,
) -> Preparation:
    """Return the stored preparation of a request, and create it if there is none.

    Args:
        request: Model to prepare, and the budget.
        store: Store that may already have the preparation, and receives the result.
        work: Folder for temporary files, which are removed.
        reporter: Receives every stage. If it raises, the work ends.
        base: Base folder of relative paths in the request.
        downloads: Folder for downloads, so that a broken download resumes; None for a folder in `work`.

    Raises:
        enginesmith_contract.errors.SourceError: The model cannot be fetched.
        enginesmith_contract.errors.ModelError: The model cannot be used; `reason` identifies the cause.
        enginesmith_contract.errors.SpecError: A profile (`ProfileMissing` and the reasons of `ProfileProblem`),
            `verification.inputs`, `verification.outputs`, `precision.keep` (`KeepMatchesNothing`) or `preprocess` does
            not fit the model.
        enginesmith_contract.errors.StoreError: The store failed.
        enginesmith_contract.errors.CancelledBuildError: The reporter cancelled the work.
    """
    refuse_uncalibrated(request.precision)
    work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="prepare-", dir=work) as made:
        folder = Path(made)
        fetched = fetch_model(request.source, downloads or work / "sources", reporter, base=base)
        data = fetch_calibration_data(request, downloads or work / "sources", reporter, base)
        key = preparation_key(
            PreparationKeyInputs(
                source_digest=fetched.source_digest,
                profiles=request.profiles,
                precision=request.precision,
                calibration_digest=None if data is None else data.digest,
                verification_inputs=request.verification.inputs,
                preprocess=request.preprocess,
            )
        )
        known = read_record(store, preparation_pointer(key), Preparation)
        if known is not None:
            return known
        with store.exclusive(preparation_pointer(key)):
            # Another process may have created it while this one waited.
            known = read_record(store, preparation_pointer(key), Preparation)
            if known is not None:
                return known
            with warm_worker(WORKER, folder / "worker.log"):
                preparation = _Work(request, store, folder, reporter, base, fetched, data, key).run()
            document = store.create_pointer(preparation_pointer(key), preparation.to_json())
        return parse_record(document, Preparation, preparation_pointer(key))


@dataclass
class _Work:
    """One preparation that must be created."""

    request: PreparationRequest
    store: Store
    folder: Path
    reporter: Reporter
    base: Path | None
    fetched: FetchedModel
    data: FetchedData | None
    key: str
    path: Path = field(init=False)
    files: tuple[Path, ...] = field(init=False)
    _steps: Steps = field(init=False)

    def __post_init__(self) -> None:
        """Start with the fetched files. The check may replace them."""
        self.path = self.fetched.path
        self.files = tuple(self.path.parent / file.path for file in self.fetched.files)
        self._steps = Steps(folder=self.folder, model=self.path.name, advance=self.reporter.advance)

    def run(self) -> Preparation:
        """Run the stages. The first failure ends the preparation."""
        inspection, profiles = self._check()
        feed = self._feed(inspection, profiles)
        exercised, budget = self._exercise(feed, profiles, inspection)
        self._verify_preprocess(inspection, feed, exercised)
        rounding = self._measure_rounding(feed, exercised, budget)
        answer_warnings = check_answers(self.fetched.path.name, exercised, inspection.random, inspection.unordered)
        facts, corrections = correct_outputs(inspection.facts, inspection.unranked, exercised.seen)
        feed = feed.model_copy(update={"facts": facts})
        batching = prove_batching(
            self.path,
            feed,
            profiles,
            mixing=inspection.mixing,
            folder=_folder(self.folder, "batching"),
            limits=budget.limits,
            memory_bytes=budget.memory_bytes,
            tick=self._tick,
        )
        self.reporter.end(batching=batching.proved, runs=len(exercised.stored))
        cast = self._cast(inspection, feed, profiles, exercised, budget, batched=batching.proved)
        arithmetic = Arithmetic(
            precision=self.request.precision, own=inspection.own_precisions, rounding=rounding or {}
        )
        advice, parser_warning = self._second_opinion(cast)
        model, references, reference_warnings = self._store(cast, exercised)
        quantized = cast if isinstance(cast, QuantizedModel) else None
        references += quantized.samples if quantized else ()
        warnings = (
            *inspection.warnings,
            *answer_warnings,
            *corrections,
            *cast.warnings,
            parser_warning,
            *unverified_lines(exercised.exercises),
            *reference_warnings,
        )
        return Preparation(
            preparation_key=self.key,
            source_digest=self.fetched.source_digest,
            facts=facts.model_copy(
                update={
                    "refused_nodes": describe_refusals(inspection.refusals)[:_SAID_REFUSALS],
                    # If samples decide, a difference on generated inputs does not refuse the model.
                    "expected_differences": None
                    if any(one.is_sample for one in references)
                    else expected_differences(cast.differences, arithmetic),
                }
            ),
            structure_digest=cast.structure_digest,
            model=model,
            onnxruntime_model=quantized.onnxruntime if quantized else None,
            calibration_digest=self.data.digest if self.data else None,
            profiles=profiles,
            exercises=exercised.exercises,
            references=references,
            batching=batching,
            advice=(*inspection.advice, *advice),
            precision=arithmetic.precision,
            own_precisions=arithmetic.own,
            rounding=rounding,
            kept=cast.kept,
            onnxruntime_kept=quantized.onnxruntime_kept if quantized else None,
            first_fall=quantized.first_fall if quantized else None,
            onnxruntime_first_fall=quantized.onnxruntime_first_fall if quantized else None,
            auto_keep=quantized.auto_keep if quantized else None,
            refusals=inspection.refusals,
            warnings=tuple(warning for warning in warnings if warning),
            tensorrt_warnings=quantized.tensorrt_warnings if quantized else (),
        )

    def _check(self) -> tuple[Inspection, tuple[Profile, ...]]:
        self.reporter.begin("check", self.fetched.path.name)
        output = _folder(self.folder, "source")
        job = InspectJob(
            model=str(self.fetched.path),
            output=str(output),
            keep=self.request.precision.keep,
            preprocess=self.request.preprocess or (),
        )
        results = self._steps.do(job, "check")
        inspection = Inspection.model_validate(results)
        if inspection.files:
            self.path, self.files = output / inspection.files[0], tuple(output / name for name in inspection.files)
        problems = check_profiles(inspection.facts, self.request.profiles)
        if problems:
            raise profiles_refused(inspection.facts, problems, self.request.preprocess or ())
        facts = inspection.facts
        self.reporter.end(inputs=len(facts.inputs), outputs=len(facts.outputs), opset=facts.opset)
        return inspection, complete_profiles(facts, self.request.profiles)

    def _feed(self, inspection: Inspection, profiles: tuple[Profile, ...]) -> Feed:
        files = InputFiles(folder=_folder(self.folder, "inputs"), source=self.request.source, reporter=self.reporter)
        values = local_values(self.request.verification.inputs, self.base, files.fetch)
        feed = Feed(
            facts=inspection.facts,
            values=values,
            index_bounds=inspection.index_bounds,
            emulated=inspection.needs_emulation,
            threads=1 if inspection.losing else 0,
        )
        check_values(feed, profiles)
        check_outputs(self.request.verification, (spec.name for spec in inspection.facts.outputs))
        return feed

    def _exercise(self, feed: Feed, profiles: tuple[Profile, ...], inspection: Inspection) -> tuple[Exercised, Budget]:
        self.reporter.begin("exercise", f"{3 * len(profiles)} shapes")
        budget = Budget(
            memory_bytes=self.request.memory_bytes, deadline=time.monotonic() + max(self.request.seconds, 1.0)
        )
        exercised = exercise(
            self.path,
            feed,
            profiles,
            folder=_folder(self.folder, "runs"),
            budget=budget,
            tick=self.reporter.advance,
            repeats=_RANDOM_REPEATS if inspection.random else 1,
            least=_LEAST_RUNS,
        )
        return exercised, budget

    def _verify_preprocess(self, inspection: Inspection, feed: Feed, exercised: Exercised) -> None:
        if inspection.original is None or not exercised.stored:
            return
        folder = _folder(self.folder, "preprocess")
        job = PreprocessJob(
            original=str(self.fetched.path),
            original_facts=inspection.original,
            entries=self.request.preprocess or (),
            feed=feed,
            runs=tuple(point.run for point in exercised.stored),
            folder=str(self.folder / "runs"),
            output=str(folder),
            memory_bytes=self.request.memory_bytes,
        )
        self._steps.do(job, "preprocess")

    def _measure_rounding(self, feed: Feed, exercised: Exercised, budget: Budget) -> dict[str, float] | None:
        """Return the effect of the last bits on the outputs, or None if no run fits the budget.

        FP16 loses 8,192 times as much; the rehearsal of the cast measures that.
        """
        points = quick_points(exercised, _ROUNDING_SECONDS / 4)
        policy = self.request.precision
        if needs_cast(policy) or policy.quantises or not points or budget.is_spent:
            return None
        job = RoundingJob(
            model=str(self.path),
            feed=feed,
            runs={point.run: point.shapes for point in points},
            given={point.run: point.given for point in points if point.given},
            folder=str(self.folder / "runs"),
            memory_bytes=budget.memory_bytes,
        )
        results, end = self._steps.ask(job, _folder(self.folder, "rounding"), budget.limits(_ROUNDING_SECONDS))
        if end.outcome is not Outcome.FINISHED or not isinstance(results, dict):
            return None
        return {name: float(value) for name, value in results.items()}

    def _cast(
        self,
        inspection: Inspection,
        feed: Feed,
        profiles: tuple[Profile, ...],
        exercised: Exercised,
        budget: Budget,
        *,
        batched: bool,
    ) -> Prepared:
        policy = self.request.precision
        if policy.calibration is not None and self.data is not None:
            self.reporter.begin("quantize", policy.default.value)
            quantize = QuantizeStage(
                model=self.path,
                request=self.request,
                source_digest=self.fetched.source_digest,
                calibration=policy.calibration,
                data=self.data,
                batched=batched,
                feed=feed,
                profiles=profiles,
                exercised=exercised,
                budget=budget,
                folder=self.folder,
                store=self.store,
                ask=self._steps.ask,
                do=self._steps.do,
                tick=self.reporter.advance,
            )
            quantized = quantize.run()
            self.reporter.end(kept=len(quantized.kept), samples=len(quantized.samples))
            return quantized
        if not needs_cast(policy):
            return Prepared(folder=self.path.parent, files=self.files, structure_digest=inspection.structure_digest)
        self.reporter.begin("cast", policy.default.value)
        stage = CastStage(
            model=self.path,
            policy=policy,
            feed=feed,
            exercised=exercised,
            budget=budget,
            folder=self.folder,
            ask=self._steps.ask,
            do=self._steps.do,
            tick=self.reporter.advance,
        )
        prepared = stage.run()
        self.reporter.end(kept=len(prepared.kept))
        return prepared

    def _second_opinion(self, prepared: Prepared) -> tuple[tuple[Advice, ...], str]:
        return parser_advice(
            prepared.files[0],
            folder=self.folder,
            limits=Limits(memory_bytes=2 * self.request.memory_bytes, seconds=_PARSER_SECONDS),
            tick=self._tick,
        )

    def _store(
        self, prepared: Prepared, exercised: Exercised
    ) -> tuple[tuple[StoredFile, ...], tuple[ReferenceSet, ...], tuple[str, ...]]:
        self.reporter.begin("store")
        model = self.store.put_files(prepared.folder, prepared.files)
        references, warnings = store_references(self.store, self.folder / "runs", exercised.stored)
        self._tick()
        size = sum(file.size_bytes for file in model)
        self.reporter.end(modelBytes=size, references=len(references))
        return model, references, warnings

    def _tick(self) -> None:
        self.reporter.advance(1.0)


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir(exist_ok=True)
    return folder
