"""The local path of `up` and `build`: observe, plan, prepare, plan again with the model known, build.

    documents ──> plan (pending) ──> prepare ──> plan (keys) ──> build ──> Prepared documents with their manifests

The same planner decides as in a cluster; this machine is its only node. Nothing heavy is imported before it is needed:
where the store has everything, a second run touches neither the ONNX library nor a backend.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from enginesmith_cli.documents import DocumentReporter, Failures, name_of
from enginesmith_cli.home import default_store_uri, scratch_folder, state_folder
from enginesmith_cli.observe import observe_this_machine, with_preparation
from enginesmith_cli.source_memo import SourceMemo
from enginesmith_contract.environment import LOG_FORMAT
from enginesmith_contract.errors import PlanRefusedError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import Preparation
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.translate import model_source
from enginesmith_operator.planning.plan import plan, refusal_error
from enginesmith_operator.planning.plan_records import EnginePlan, Plan, TargetPlan, TargetState
from enginesmith_operator.planning.snapshot import Observed
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.build.plugin_libraries import PluginPlaces
from enginesmith_runtime.fetch.location import Scheme, local_path, scheme_of
from enginesmith_runtime.progress import Reporter
from enginesmith_runtime.progress_output import open_reporter
from enginesmith_runtime.store.open import open_store

__all__ = ["BuiltEngine", "LocalMachine", "PreparedDocument", "open_machine", "servable_target"]


@dataclass(frozen=True, kw_only=True)
class PreparedDocument:
    """A document whose model is prepared, with the plan that knows its keys."""

    engine: InferenceEngine
    plan: Plan
    preparation: Preparation


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """One engine in the store. `was_stored`: nothing had to be built."""

    document: PreparedDocument
    target: TargetPlan
    manifest: Manifest
    was_stored: bool


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
    """

    home: Path
    store: str
    base: Path
    reporter: Reporter
    build_for_absent_gpus: bool = False
    shared_memory: bool = False
    max_message_bytes: int = 0

    def observe(self) -> Observed:
        """Return what this machine has.

        Raises:
            enginesmith_contract.errors.StoreError: the store cannot be read.
        """
        observed = observe_this_machine(self.store, build_for_absent_gpus=self.build_for_absent_gpus)
        server = {"shared_memory": self.shared_memory, "max_message_bytes": self.max_message_bytes}
        return observed.model_copy(update=server)

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
                prepared.append(self.prepare_document(engine, first, observed))
            yield from prepared

    def _plan_document(self, engine: InferenceEngine, observed: Observed) -> Plan:
        planned = plan(engine, observed, datetime.now(UTC))
        _require_target(planned)
        return planned

    def prepare_document(self, engine: InferenceEngine, planned: Plan, observed: Observed) -> PreparedDocument:
        """Fetch and prepare the model, unless the store has its preparation, and plan with what is known then.

        Raises:
            enginesmith_contract.errors.EnginesmithError: the model could not be had or used, or fits no target.
        """
        preparation = self._recall(engine, observed) or self._prepare(engine, planned)
        known = observed.model_copy(
            update={"source_digest": preparation.source_digest, "model_facts": preparation.facts}
        )
        final = plan(engine, with_preparation(known, engine), datetime.now(UTC))
        _require_target(final)
        return PreparedDocument(engine=engine, plan=final, preparation=preparation)

    def _recall(self, engine: InferenceEngine, observed: Observed) -> Preparation | None:
        """Return the stored preparation of a local model that has not changed since it was last read."""
        path = self._local_model(engine)
        digest = self._memo.recall(path, engine.spec.model.sha256) if path else None
        if digest is None:
            return None
        return with_preparation(observed.model_copy(update={"source_digest": digest}), engine).preparation

    def _prepare(self, engine: InferenceEngine, planned: Plan) -> Preparation:
        from enginesmith_runtime.onnx_graphs.graph import read_graph
        from enginesmith_runtime.prepare.facts import model_files
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

    def _build(self, document: PreparedDocument, target: TargetPlan, planned: EnginePlan) -> BuiltEngine:
        if planned.build is None:
            raise PlanRefusedError(
                "the engine's key is still pending",
                where=f"{document.plan.name}/{target.name}",
                why="a digest that goes into it is not known",
                reason="KeyPending",
            )
        with scratch_folder(self.home) as work:
            places = PluginPlaces.from_environment(os.environ, base=self.base)
            reporter = DocumentReporter(self.reporter, f"{name_of(document.engine)}/{target.name}")
            manifest = build(planned.build, work, reporter, plugins_from=places)
        return BuiltEngine(document=document, target=target, manifest=manifest, was_stored=planned.stored)


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
