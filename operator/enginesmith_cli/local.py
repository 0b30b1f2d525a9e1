"""The local path of `up` and `build`: observe, plan, prepare, plan again with the model known, build.

    documents ──> plan (pending) ──> prepare ──> plan (keys) ──> build ──> Prepared documents with their manifests
                         ▲                                         │
                         └── spec.precision.fallback: the next ◄───┘ the gate failed

The same planner decides as in a cluster; this machine is its only node. Nothing heavy is imported before it is needed:
where the store has everything, a second run touches neither the ONNX library nor a backend.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from enginesmith_cli.calibration_data import recall_digest, remember_digest
from enginesmith_cli.documents import DocumentReporter, Failures, name_of
from enginesmith_cli.fallback import GateMemo, find_slower
from enginesmith_cli.home import default_store_uri, scratch_folder, state_folder
from enginesmith_cli.observe import observe_this_machine, with_preparation
from enginesmith_cli.options import read_trusted_keys
from enginesmith_cli.source_memo import SourceMemo
from enginesmith_contract.environment import LOG_FORMAT
from enginesmith_contract.errors import EnginesmithError, PlanRefusedError, VerificationError
from enginesmith_contract.manifest import Manifest, Timings
from enginesmith_contract.preparation import Preparation
from enginesmith_operator.api.conditions import PRECISION_FALLBACK
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.translate import model_source, verification_policy
from enginesmith_operator.planning.fallback import (
    GATE_FAILED,
    fallback_condition,
    following,
    refused_by_model,
    refused_by_plan,
)
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import EnginePlan, Plan, TargetPlan, TargetState
from enginesmith_operator.planning.refusal_error import refusal_error
from enginesmith_operator.planning.signers import signers_of
from enginesmith_operator.planning.snapshot import Observed, RefusedPrecision
from enginesmith_runtime.build.metric_gate import folders_for
from enginesmith_runtime.build.pipeline import build, measure_timings
from enginesmith_runtime.build.plugin_libraries import PluginPlaces
from enginesmith_runtime.fetch.location import Scheme, local_path, scheme_of
from enginesmith_runtime.progress import Reporter
from enginesmith_runtime.progress_output import open_reporter
from enginesmith_runtime.store.open import open_store

__all__ = ["BuiltEngine", "LocalMachine", "PreparedDocument", "open_machine", "servable_target"]


@dataclass(frozen=True, kw_only=True)
class PreparedDocument:
    """A document whose model is prepared, with the plan that knows its keys.

    Attributes:
        engine: in the precision that it is prepared in.
        observed: what its plan was made of.
    """

    engine: InferenceEngine
    plan: Plan
    preparation: Preparation
    observed: Observed


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """One engine in the store. `was_stored`: nothing had to be built."""

    document: PreparedDocument
    target: TargetPlan
    manifest: Manifest
    was_stored: bool

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the warnings about the plan, and about the model that the engine was built from."""
        backend = self.manifest.toolchain.backend
        return (*self.document.plan.warnings, *self.document.preparation.warnings_for([backend]))

    @property
    def new_warnings(self) -> tuple[str, ...]:
        """Return `warnings` without that of a fallback, which was printed when it happened."""
        told = [one.message for one in self.document.plan.conditions if one.type == PRECISION_FALLBACK]
        return tuple(line for line in self.warnings if not (told and line.endswith(told[0])))


_Made = TypeVar("_Made")


@dataclass(frozen=True, kw_only=True)
class LocalMachine:
    """This machine as the place where everything happens.

    Attributes:
        home: folder of local mode; downloads stay in it, scratch space does not.
        store: URI of the engine store.
        base: folder that relative paths of models and plugin libraries start from.
        build_for_absent_gpus: let a backend that can build for hardware that is elsewhere.
        shared_memory: clients of the server to come can share memory with it.
        max_message_bytes: the largest limit of the documents that the server to come serves; 0: each has its own.
        trusted_keys: public keys in PEM by name, of which one must have signed each model; empty: none needs it.
    """

    home: Path
    store: str
    base: Path
    reporter: Reporter
    build_for_absent_gpus: bool = False
    shared_memory: bool = False
    max_message_bytes: int = 0
    trusted_keys: Mapping[str, str] = field(default_factory=dict)

    def observe(self) -> Observed:
        """Return what this machine has.

        Raises:
            enginesmith_contract.errors.StoreError: the store cannot be read.
        """
        observed = observe_this_machine(self.store, build_for_absent_gpus=self.build_for_absent_gpus)
        server = {"shared_memory": self.shared_memory, "max_message_bytes": self.max_message_bytes}
        trust = {"model_keys": dict(self.trusted_keys), "signature_required": bool(self.trusted_keys)}
        return observed.model_copy(update=server | trust)

    def prepare_documents(self, engines: Sequence[InferenceEngine], failures: Failures) -> Iterator[PreparedDocument]:
        """Plan all documents before any work is done for one, then prepare one after another as the caller asks for it.

        Args:
            engines: the documents.
            failures: takes what goes wrong with one; the others go on.

        Raises:
            enginesmith_contract.errors.StoreError: the store cannot be read.
        """
        observed = self.observe()
        planned: list[tuple[InferenceEngine, Plan]] = []
        for engine in engines:
            with failures.of(name_of(engine)):
                planned.append((engine, self._plan_document(engine, observed)))
        for engine, first in planned:
            prepared: list[PreparedDocument] = []
            with failures.of(name_of(engine)):
                prepared.append(self._prepare_in_turn(engine, first, observed))
            yield from prepared

    def _prepare_in_turn(self, engine: InferenceEngine, planned: Plan, observed: Observed) -> PreparedDocument:
        """Prepare the document in the first of its precisions that is not refused before a build."""
        after = following(engine)
        if after is None:
            return self.prepare_document(engine, planned, observed)
        found = self._try_precision(engine, planned, observed)
        if isinstance(found, RefusedPrecision):
            return self._prepare_after(after, observed, found)
        _require_target(found.plan)
        return found

    def _try_precision(
        self, engine: InferenceEngine, planned: Plan, observed: Observed
    ) -> PreparedDocument | RefusedPrecision:
        try:
            document = self._prepare_and_plan(engine, planned, observed)
        except EnginesmithError as error:
            refused = refused_by_model(engine.spec.precision.default, error.reason, error.sentence())
            if refused is None:
                raise
            return refused
        return refused_by_plan(document.plan) or self._gates.recall(document.plan) or document

    def _prepare_after(
        self, engine: InferenceEngine, observed: Observed, refused: RefusedPrecision
    ) -> PreparedDocument:
        """Prepare the document in the precision that replaces a refused one, and report it."""
        every = (*observed.refused_precisions, refused)
        for one in fallback_condition(engine.spec.precision.default, (refused,)):
            print(f"enginesmith: {name_of(engine)}: {one.message}", file=sys.stderr)
        # What is known of the prepared model is of the refused precision.
        unknown = {"preparation": None, "model_facts": None, "calibration_digest": None}
        known = observed.model_copy(update=unknown | {"refused_precisions": every})
        return self._prepare_in_turn(engine, self._plan_document(engine, known), known)

    def _plan_document(self, engine: InferenceEngine, observed: Observed) -> Plan:
        # Otherwise, a model would be prepared for minutes before its build is refused.
        folders_for(verification_policy(engine.spec).metric_container, None)
        planned = plan(engine, observed, datetime.now(UTC))
        _require_target(planned)
        return planned

    def prepare_document(self, engine: InferenceEngine, planned: Plan, observed: Observed) -> PreparedDocument:
        """Fetch and prepare the model, unless the store has its preparation, and plan with what is known then.

        Raises:
            enginesmith_contract.errors.EnginesmithError: the model could not be had or used, or fits no target.
        """
        document = self._prepare_and_plan(engine, planned, observed)
        _require_target(document.plan)
        return document

    def _prepare_and_plan(self, engine: InferenceEngine, planned: Plan, observed: Observed) -> PreparedDocument:
        preparation = self.preparation_of(engine, planned, observed)
        known = observed.model_copy(
            update={
                "source_digest": preparation.source_digest,
                "calibration_digest": preparation.calibration_digest,
                "model_facts": preparation.facts,
            }
        )
        known = with_preparation(known, engine)
        final = plan(engine, known, datetime.now(UTC))
        return PreparedDocument(engine=engine, plan=final, preparation=preparation, observed=known)

    def preparation_of(self, engine: InferenceEngine, planned: Plan, observed: Observed) -> Preparation:
        """Return the model's preparation, whether a target takes it or not; `planned` is the document's plan.

        Raises:
            enginesmith_contract.errors.EnginesmithError: the model could not be had or used.
        """
        return self._recall(engine, observed) or self._prepare(engine, planned)

    def _recall(self, engine: InferenceEngine, observed: Observed) -> Preparation | None:
        """Return the stored preparation of a local model that has not changed since it was last read."""
        # A signature is checked with the files.
        path = self._local_model(engine) if signers_of(engine.spec, observed) is None else None
        digest = self._memo.recall(path, engine.spec.model.sha256) if path else None
        if digest is None:
            return None
        data = recall_digest(engine, self.base, self._memo)
        known = observed.model_copy(update={"source_digest": digest, "calibration_digest": data})
        return with_preparation(known, engine).preparation

    def _prepare(self, engine: InferenceEngine, planned: Plan) -> Preparation:
        from enginesmith_runtime.onnx_graphs.graph import read_graph
        from enginesmith_runtime.prepare.model_file.facts import model_files
        from enginesmith_runtime.prepare.pipeline import prepare

        begun_ns = time.time_ns()
        with scratch_folder(self.home) as work:
            preparation = prepare(
                planned.preparation,
                open_store(self.store),
                work,
                DocumentReporter(self.reporter, name_of(engine)),
                base=self.base,
                downloads=self.home / "downloads",
            )
        path = self._local_model(engine)
        if path is not None:
            files = model_files(read_graph(path), path)
            self._memo.remember(path, files, preparation.source_digest, begun_ns=begun_ns)
        if preparation.calibration_digest is not None:
            remember_digest(engine, self.base, self._memo, preparation.calibration_digest, begun_ns=begun_ns)
        return preparation

    @property
    def _memo(self) -> SourceMemo:
        return SourceMemo(self.home / "digests")

    def _local_model(self, engine: InferenceEngine) -> Path | None:
        source = model_source(engine.spec)
        return local_path(source.uri, self.base).absolute() if scheme_of(source.uri) is Scheme.FILE else None

    def build_target(self, document: PreparedDocument, target: TargetPlan) -> tuple[BuiltEngine, ...]:
        """Build every engine of a target that the store lacks.

        Raises:
            enginesmith_contract.errors.EnginesmithError: the builder refused or failed, or the gate did.
        """
        return tuple(self._build(document, target, one) for one in target.engines)

    def build_served(self, document: PreparedDocument) -> tuple[BuiltEngine, ...]:
        """Build the engines of the first target that this machine serves, in the first precision that passes.

        Raises:
            enginesmith_contract.errors.EnginesmithError: no target fits, the builder failed, or the last gate did.
        """
        found = self.build_or_fall_back(document, servable_target(document.plan))
        return self.build_served(found) if isinstance(found, PreparedDocument) else found

    def build_or_fall_back(
        self, document: PreparedDocument, target: TargetPlan
    ) -> tuple[BuiltEngine, ...] | PreparedDocument:
        """Build every engine of a target that the store lacks; where one is refused, prepare the next precision.

        Returns:
            The engines, or the document in the precision that takes the place of its own.

        Raises:
            enginesmith_contract.errors.EnginesmithError: the builder failed, or the gate of the last precision did.
        """
        after = following(document.engine)
        if after is None:
            return self.build_target(document, target)
        built: list[BuiltEngine] = []
        for one in target.engines:
            try:
                built.append(self._build(document, target, one))
                manifest, known = built[-1].manifest, document.observed
                latencies = manifest.timings.latency_seconds
                found = find_slower(document.engine, document.plan, manifest.engine_key, latencies, known)
            except VerificationError as error:
                precision = document.engine.spec.precision.default
                found = RefusedPrecision(precision=precision, reason=GATE_FAILED, message=error.sentence())
            if found is not None:
                self._gates.remember(one, found)
                return self._prepare_after(after, document.observed, found)
        return tuple(built)

    @property
    def _gates(self) -> GateMemo:
        return GateMemo(self.home / "gates")

    def measure_target(self, document: PreparedDocument, target: TargetPlan) -> tuple[Timings, ...]:
        """Build every engine of a target for the timing cache alone.

        Raises:
            enginesmith_contract.errors.EnginesmithError: the builder refused or failed.
        """
        return tuple(self._run(document, target, one, measure_timings) for one in target.engines)

    def _build(self, document: PreparedDocument, target: TargetPlan, planned: EnginePlan) -> BuiltEngine:
        manifest = self._run(document, target, planned, build)
        return BuiltEngine(document=document, target=target, manifest=manifest, was_stored=planned.stored)

    def _run(
        self, document: PreparedDocument, target: TargetPlan, planned: EnginePlan, run: Callable[..., _Made]
    ) -> _Made:
        if planned.build is None:
            raise PlanRefusedError(
                "the engine's key is still pending",
                where=f"{document.plan.name}/{target.name}",
                why="a digest that is part of it is not known",
                reason="KeyPending",
            )
        with scratch_folder(self.home) as work:
            places = PluginPlaces.from_environment(os.environ, base=self.base)
            reporter = DocumentReporter(self.reporter, f"{name_of(document.engine)}/{target.name}")
            return run(planned.build, work, reporter, plugins_from=places)


@contextmanager
def open_machine(
    arguments: argparse.Namespace, *, build_for_absent_gpus: bool = False, max_message_bytes: int = 0
) -> Iterator[LocalMachine]:
    """Give this machine with progress on stderr; `arguments` has `file`, `home` and `store`."""
    home = state_folder(arguments.home)
    with open_reporter(os.environ.get(LOG_FORMAT, "auto"), sys.stderr) as reporter:
        yield LocalMachine(
            home=home,
            store=arguments.store or default_store_uri(home),
            base=arguments.file.absolute().parent,
            reporter=reporter,
            build_for_absent_gpus=build_for_absent_gpus,
            shared_memory=getattr(arguments, "shared_memory", False),
            max_message_bytes=max_message_bytes,
            trusted_keys=read_trusted_keys(getattr(arguments, "trusted_keys", None)),
        )


def servable_target(planned: Plan) -> TargetPlan:
    """Return the first target in the document's order that this machine serves.

    Raises:
        enginesmith_contract.errors.PlanRefusedError: it serves none.
    """
    for target in planned.targets:
        if target.state is TargetState.PLANNED:
            return target
    raise refusal_error(planned)


def _require_target(planned: Plan) -> None:
    if not planned.has_target:
        raise refusal_error(planned)
