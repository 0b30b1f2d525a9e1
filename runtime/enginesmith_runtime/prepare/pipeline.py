"""One model, prepared: fetch, check, exercise, batching proof, cast, references, store.

The path of a preparation that exists already touches no model library: fetch, digest, key, pointer. Everything else
runs in child processes (see `child`), so a cancel ends the work within a second whatever a library is doing, and the
working folder goes with it. The pointer is written last: before it there is no preparation.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from enginesmith_contract.errors import ModelError, SpecError
from enginesmith_contract.keys import PreparationKeyInputs, preparation_key
from enginesmith_contract.preparation import (
    Advice,
    Exercise,
    ExerciseStatus,
    Preparation,
    PreparationRequest,
    ReferenceSet,
    describe_refusals,
)
from enginesmith_contract.profile_checks import ProfileProblem, check_profiles, complete_profiles
from enginesmith_contract.profile_suggestions import suggest_profile
from enginesmith_contract.profiles import Profile
from enginesmith_contract.store_layout import StoredFile, preparation_pointer
from enginesmith_contract.tensors import ModelFacts
from enginesmith_contract.verification import check_outputs
from enginesmith_runtime.fetch.model import FetchedModel, fetch_model
from enginesmith_runtime.prepare.advice import parser_advice
from enginesmith_runtime.prepare.answers import check_answers
from enginesmith_runtime.prepare.batching import prove_batching
from enginesmith_runtime.prepare.cast_stage import CastStage, Prepared
from enginesmith_runtime.prepare.child import ChildEnd, Limits, Outcome, run_worker
from enginesmith_runtime.prepare.exercise import Exercised, exercise
from enginesmith_runtime.prepare.inputs import check_values, local_values
from enginesmith_runtime.prepare.jobs import (
    AnyJob,
    Event,
    EventKind,
    Feed,
    Inspection,
    InspectJob,
)
from enginesmith_runtime.prepare.observed_shapes import correct_outputs
from enginesmith_runtime.prepare.points import Budget
from enginesmith_runtime.prepare.precision import needs_cast, refuse_unavailable
from enginesmith_runtime.prepare.references import store_references
from enginesmith_runtime.progress import Reporter
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.records import parse_record, read_record

__all__ = ["prepare"]

# A check or a cast reads the whole model; nothing but a hang takes longer.
_STEP_SECONDS = 1800.0
_PARSER_SECONDS = 60.0
# One repetition shows what varies by itself; a draw of few booleans can come out alike several times.
_RANDOM_REPEATS = 8
# Lines about nodes that TensorRT refuses, which the operator keeps in its status.
_SAID_REFUSALS = 4
# One run says little of the ranges of outputs.
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
    """Return the stored preparation of a request, making it where there is none.

    Args:
        request: what to prepare, and within which budget.
        store: is looked at first, and receives the result.
        work: folder for everything temporary, which is removed again.
        reporter: told every stage; what it raises ends the work.
        base: folder that relative paths of the request start from.
        downloads: folder that keeps what was fetched, so that a broken download resumes; None: inside `work`.

    Raises:
        enginesmith_contract.errors.SourceError: the model could not be had.
        enginesmith_contract.errors.ModelError: the model cannot be used as asked; `reason` says why.
        enginesmith_contract.errors.SpecError: a profile (`ProfileMissing` and the reasons of `ProfileProblem`),
            `verification.inputs`, `verification.outputs` or `precision.keep` (`KeepMatchesNothing`) does not fit the
            model.
        enginesmith_contract.errors.StoreError: the store failed.
        enginesmith_contract.errors.CancelledBuildError: the reporter was told to stop.
    """
    refuse_unavailable(request.precision)
    work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="prepare-", dir=work) as made:
        folder = Path(made)
        fetched = fetch_model(request.source, downloads or work / "sources", reporter, base=base)
        key = preparation_key(
            PreparationKeyInputs(
                source_digest=fetched.source_digest,
                profiles=request.profiles,
                precision=request.precision,
                verification_inputs=request.verification.inputs,
            )
        )
        known = read_record(store, preparation_pointer(key), Preparation)
        if known is not None:
            return known
        with store.exclusive(preparation_pointer(key)):
            # Another process may have made it while this one waited.
            known = read_record(store, preparation_pointer(key), Preparation)
            if known is not None:
                return known
            preparation = _Work(request, store, folder, reporter, base, fetched, key).run()
            document = store.create_pointer(preparation_pointer(key), preparation.to_json())
        return parse_record(document, Preparation, preparation_pointer(key))


@dataclass
class _Work:
    """One preparation that has to be made."""

    request: PreparationRequest
    store: Store
    folder: Path
    reporter: Reporter
    base: Path | None
    fetched: FetchedModel
    key: str
    path: Path = field(init=False)
    files: tuple[Path, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Start with the files as they were fetched; the check may give others."""
        self.path = self.fetched.path
        self.files = tuple(self.path.parent / file.path for file in self.fetched.files)

    def run(self) -> Preparation:
        """Go through the stages; the first that fails ends it."""
        inspection, profiles = self._check()
        feed = self._feed(inspection, profiles)
        exercised, budget = self._exercise(feed, profiles, inspection)
        answer_warnings = check_answers(self.fetched.path.name, exercised, inspection.random)
        facts, corrections = correct_outputs(inspection.facts, inspection.unranked, exercised.seen)
        feed = feed.model_copy(update={"facts": facts})
        batching = prove_batching(
            self.path,
            feed,
            profiles,
            folder=_folder(self.folder, "batching"),
            limits=budget.limits,
            memory_bytes=budget.memory_bytes,
            tick=self._tick,
        )
        self.reporter.end(batching=batching.proved, runs=len(exercised.stored))
        cast = self._cast(inspection, feed, exercised, budget)
        advice, parser_warning = self._second_opinion(cast)
        model, references, reference_warnings = self._store(cast, exercised)
        warnings = (
            *inspection.warnings,
            *answer_warnings,
            *corrections,
            *cast.warnings,
            parser_warning,
            *_unverified(exercised.exercises),
            *reference_warnings,
        )
        return Preparation(
            preparation_key=self.key,
            source_digest=self.fetched.source_digest,
            facts=facts.model_copy(update={"refused_nodes": describe_refusals(inspection.refusals)[:_SAID_REFUSALS]}),
            structure_digest=cast.structure_digest,
            model=model,
            profiles=profiles,
            exercises=exercised.exercises,
            references=references,
            batching=batching,
            advice=(*inspection.advice, *advice),
            precision=self.request.precision,
            own_precisions=inspection.own_precisions,
            kept=cast.kept,
            refusals=inspection.refusals,
            warnings=tuple(warning for warning in warnings if warning),
        )

    def _check(self) -> tuple[Inspection, tuple[Profile, ...]]:
        self.reporter.begin("check", self.fetched.path.name)
        output = _folder(self.folder, "source")
        job = InspectJob(model=str(self.fetched.path), output=str(output), keep=self.request.precision.keep)
        results = self._do(job, "check")
        inspection = Inspection.model_validate(results)
        if inspection.files:
            self.path, self.files = output / inspection.files[0], tuple(output / name for name in inspection.files)
        problems = check_profiles(inspection.facts, self.request.profiles)
        if problems:
            raise _profiles_refused(inspection.facts, problems)
        facts = inspection.facts
        self.reporter.end(inputs=len(facts.inputs), outputs=len(facts.outputs), opset=facts.opset)
        return inspection, complete_profiles(facts, self.request.profiles)

    def _feed(self, inspection: Inspection, profiles: tuple[Profile, ...]) -> Feed:
        values = local_values(self.request.verification.inputs, self.base)
        feed = Feed(
            facts=inspection.facts,
            values=values,
            index_bounds=inspection.index_bounds,
            emulated=inspection.needs_emulation,
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

    def _cast(self, inspection: Inspection, feed: Feed, exercised: Exercised, budget: Budget) -> Prepared:
        policy = self.request.precision
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
            ask=self._ask,
            do=self._do,
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

    def _do(self, job: AnyJob, name: str) -> object:
        """Run a job that must give a result; its only limits are those of the machine."""
        results, end = self._ask(job, _folder(self.folder, name), Limits(seconds=_STEP_SECONDS))
        if end.outcome is not Outcome.FINISHED or results is None:
            raise ModelError(
                f"the {name} of the model did not finish",
                where=self.path.name,
                why=f"{end.outcome.value} {end.detail}".strip(),
                remedy="give the preparation more memory; if it crashed, the ONNX library cannot read this model",
                reason="PreparationCrashed",
            )
        return results

    def _ask(self, job: AnyJob, folder: Path, limits: Limits) -> tuple[object, ChildEnd]:
        results: list[object] = []

        def receive(event: Event) -> None:
            if event.kind is EventKind.RESULT:
                results.append(event.data)

        end = run_worker(job, folder=folder, limits=limits, tick=self._tick, on_event=receive)
        return (results[0] if results else None), end

    def _tick(self) -> None:
        self.reporter.advance(1.0)


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir(exist_ok=True)
    return folder


def _unverified(exercises: Iterable[Exercise]) -> tuple[str, ...]:
    return tuple(
        f"profile {entry.profile!r}, {entry.point}: unverified, since {entry.reason}"
        for entry in exercises
        if entry.status is ExerciseStatus.UNVERIFIED
    )


def _profiles_refused(facts: ModelFacts, problems: tuple[ProfileProblem, ...]) -> SpecError:
    if problems[0].reason == "ProfileMissing":
        return SpecError(
            "the model needs shape profiles",
            where="spec.profiles",
            why=problems[0].found,
            remedy=f"add below spec, with your own sizes:\n{suggest_profile(facts)}",
            reason="ProfileMissing",
        )
    return SpecError(
        "the profiles do not fit the model",
        where="spec.profiles",
        why="; ".join(problem.sentence() for problem in problems),
        remedy="correct the profiles",
        reason=problems[0].reason,
    )
