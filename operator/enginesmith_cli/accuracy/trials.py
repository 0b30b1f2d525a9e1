"""The work of one command: each precision is prepared, compared with the FP32 model and built, with its progress."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from enginesmith_cli.accuracy.candidates import Candidate
from enginesmith_cli.accuracy.rows import Row
from enginesmith_cli.accuracy.samples import SampleFiles
from enginesmith_cli.local import LocalMachine, servable_target
from enginesmith_cli.verification_lines import alarm_lines
from enginesmith_contract.auto_keep import AutoKeepResult, KeepSearch
from enginesmith_contract.backends import Backend
from enginesmith_contract.errors import CancelledBuildError, EnginesmithError, ModelError, VerificationError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.store_layout import StoredFile
from enginesmith_contract.verification import VerificationStatus
from enginesmith_operator.api.translate import verification_policy
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.snapshot import Observed
from enginesmith_runtime.child_processes import Limits, Outcome
from enginesmith_runtime.prepare.accuracy.jobs import Measured, MeasureJob
from enginesmith_runtime.prepare.child import run_worker
from enginesmith_runtime.prepare.jobs import Event, EventKind
from enginesmith_runtime.progress import Fact, Reporter
from enginesmith_runtime.store.open import open_store

__all__ = ["Compared", "StageOfCandidate", "Trials"]

_PREPARED: Final = 0.4
_MEASURED: Final = 0.8
_SECONDS: Final = 3600.0


class StageOfCandidate:
    """A Reporter whose stages are a part of one stage of another."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.done = 0.0

    def begin(self, stage: str, detail: str = "") -> None:
        """Show the stage as a detail."""
        self._reporter.advance(self.done, f"{stage} {detail}".rstrip())

    def advance(self, fraction: float, detail: str = "") -> None:
        """Let the other reporter check whether the work must stop."""

    def end(self, **facts: Fact) -> None:
        """Report nothing, because the enclosing stage reports its own end."""


@dataclass(kw_only=True)
class Compared:
    """What was found: FP32 first; `manifests` has the engines that were built."""

    samples: SampleFiles
    rows: list[Row] = field(default_factory=list)
    manifests: list[Manifest] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Engine:
    """An engine, or the reason why there is none; `backend` is None if no target can be served."""

    backend: Backend | None
    manifest: Manifest | None = None
    error: EnginesmithError | None = None


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What is compared, and how.

    Attributes:
        machine: its reporter is `stage`.
        reporter: receives a stage for each candidate.
        stage: of the candidate at hand.
        work: an empty folder.
        choose: returns the samples, given the FP32 preparation.
        layers: number of samples that the values inside the model are compared with.
    """

    machine: LocalMachine
    reporter: Reporter
    stage: StageOfCandidate
    work: Path
    choose: Callable[[Preparation], SampleFiles]
    layers: int

    def run(self, all_candidates: Sequence[Candidate]) -> Compared:
        """Compare all candidates; the first one is FP32, and everything is compared with it.

        Raises:
            EnginesmithError: the model cannot be prepared in FP32, or the samples do not fit it.
        """
        observed = self.machine.observe()
        first, *others = all_candidates
        self.reporter.begin(first.label, "prepare")
        reference = self._prepare(first, observed)
        compared = Compared(samples=self.choose(reference))
        self._add(compared, first, reference, reference, observed)
        for candidate in others:
            self.stage.done = 0.0
            self.reporter.begin(candidate.label, "prepare")
            with _failing(compared, candidate):
                self._add(compared, candidate, reference, self._prepare(candidate, observed), observed)
        return compared

    def _add(
        self,
        compared: Compared,
        candidate: Candidate,
        reference: Preparation,
        preparation: Preparation,
        observed: Observed,
    ) -> None:
        """Add a row for each model of the preparation: the one for TensorRT, and ONNX Runtime's own if it has one."""
        self._reach(_PREPARED)
        engine = self._build(candidate, observed)
        own = preparation.model if engine.backend is None else preparation.files_for(engine.backend)
        for files in dict.fromkeys((preparation.model, preparation.onnxruntime_model or preparation.model)):
            of_tensorrt = files == preparation.model
            own_kept = None if of_tensorrt else preparation.onnxruntime_kept
            label = candidate.label if of_tensorrt else f"{candidate.label} onnxruntime"
            measured = self._measure(label, candidate, (reference, preparation), files, compared.samples)
            row = Row(
                label=label,
                measured=measured,
                kept=len(preparation.kept if own_kept is None else own_kept),
                size_bytes=sum(file.size_bytes for file in files),
                auto_keep=preparation.auto_keep,
                search=_search(preparation.auto_keep, of_tensorrt=of_tensorrt),
            )
            if files == own:
                row = _with_engine(row, engine)
            compared.rows.append(row)
        if engine.manifest is not None:
            compared.manifests.append(engine.manifest)
        self.reporter.end(**_facts(compared.rows[-1]))

    def _prepare(self, candidate: Candidate, observed: Observed) -> Preparation:
        planned = plan(candidate.engine, observed, datetime.now(UTC))
        return self.machine.preparation_of(candidate.engine, planned, observed)

    def _build(self, candidate: Candidate, observed: Observed) -> _Engine:
        """Return the engine for the first target that this machine serves, or why there is none."""
        planned = plan(candidate.engine, observed, datetime.now(UTC))
        backend = None
        try:
            document = self.machine.prepare_document(candidate.engine, planned, observed)
            target = servable_target(document.plan)
            backend = target.engines[0].toolchain.backend
            return _Engine(manifest=self.machine.build_target(document, target)[0].manifest, backend=backend)
        except CancelledBuildError:
            raise
        except EnginesmithError as error:
            return _Engine(backend=backend, error=error)

    def _measure(
        self,
        label: str,
        candidate: Candidate,
        preparations: tuple[Preparation, Preparation],
        files: Sequence[StoredFile],
        samples: SampleFiles,
    ) -> Measured:
        """Compare the files of a preparation with those of the FP32 one, which comes first, in a child process."""
        store, folder = open_store(self.machine.store), self.work / label.replace(" ", "-")
        reference, preparation = preparations
        job = MeasureJob(
            reference=str(store.get_files(reference.model, self.work / "reference", private=True)),
            model=str(store.get_files(files, folder / "model", private=True)),
            facts=reference.facts,
            samples=samples.paths,
            gates=verification_policy(candidate.engine.spec).outputs or {},
            tolerances={spec.name: preparation.arithmetic.limit_of(spec.name) for spec in reference.facts.outputs},
            layers=min(self.layers, len(samples.paths)),
        )
        results: list[object] = []

        def receive(event: Event) -> None:
            if event.kind is EventKind.RAN and isinstance(event.data, int):
                share = event.data / len(samples.paths)
                self._reach(_PREPARED + (_MEASURED - _PREPARED) * share, f"{label}, sample {event.data}")
            elif event.kind is EventKind.RESULT:
                results.append(event.data)

        end = run_worker(
            job,
            folder=folder,
            limits=Limits(seconds=_SECONDS),
            tick=lambda: self._reach(self.stage.done),
            on_event=receive,
        )
        if end.outcome is not Outcome.FINISHED or not results:
            raise ModelError(
                "the comparison with the FP32 model did not finish",
                where=label,
                why=f"{end.outcome.value} {end.detail}".strip(),
                remedy="compare on fewer or smaller samples",
                reason="PreparationCrashed",
            )
        return Measured.model_validate(results[0])

    def _reach(self, done: float, detail: str = "") -> None:
        self.stage.done = max(done, self.stage.done)
        self.reporter.advance(self.stage.done, detail)


@contextmanager
def _failing(compared: Compared, candidate: Candidate) -> Iterator[None]:
    """Turn a failure in the block into the candidate's row."""
    try:
        yield
    except CancelledBuildError:
        raise
    except EnginesmithError as error:
        compared.rows.append(Row(label=candidate.label, failure=error.sentence()))


def _with_engine(row: Row, engine: _Engine) -> Row:
    manifest = engine.manifest
    if manifest is None:
        gate = VerificationStatus.FAILED.value if isinstance(engine.error, VerificationError) else ""
        return replace(row, gate=gate, failure="" if engine.error is None else engine.error.sentence())
    return replace(
        row,
        engine_bytes=sum(file.size_bytes for file in manifest.files),
        latency_ms={name: 1e3 * seconds for name, seconds in manifest.timings.latency_seconds.items()},
        gate=manifest.verification.status.value,
        alarms=alarm_lines(manifest.verification),
    )


def _search(found: AutoKeepResult | None, *, of_tensorrt: bool) -> KeepSearch | None:
    """Return the search for one of the two models of a preparation."""
    if found is None:
        return None
    return found.tensorrt if of_tensorrt else found.onnxruntime


def _facts(row: Row) -> dict[str, Fact]:
    facts: dict[str, Fact] = {"agreement": row.agreement, "modelBytes": row.size_bytes}
    return facts if row.latency is None else {**facts, "latencyMs": row.latency}
