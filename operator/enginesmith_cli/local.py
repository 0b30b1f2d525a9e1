"""The local path of `up` and `build`: observe, plan, prepare, plan again with the model known, build.

    documents ──> plan (pending) ──> prepare ──> plan (keys) ──> build ──> Prepared documents with their manifests

The same planner decides as in a cluster; this machine is its only node. Nothing heavy is imported before it is needed:
where the store has everything, a second run touches neither the ONNX library nor a backend.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from enginesmith_cli.home import default_store_uri, scratch_folder, state_folder
from enginesmith_cli.observe import observe_this_machine, with_preparation
from enginesmith_contract.environment import LOG_FORMAT
from enginesmith_contract.errors import PlanRefusedError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import Preparation
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.planning.plan import EnginePlan, Plan, TargetPlan, TargetState, plan, refusal_error
from enginesmith_operator.planning.snapshot import Observed
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.prepare.pipeline import prepare
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
        base: folder that relative model paths start from.
        build_for_absent_gpus: let a backend that can build for hardware that is elsewhere.
    """

    home: Path
    store: str
    base: Path
    reporter: Reporter
    build_for_absent_gpus: bool = False

    def observe(self) -> Observed:
        """Return what this machine has.

        Raises:
            enginesmith_contract.errors.StoreError: the store cannot be read.
        """
        return observe_this_machine(self.store, build_for_absent_gpus=self.build_for_absent_gpus)

    def plan_documents(self, engines: Iterable[InferenceEngine], observed: Observed) -> tuple[Plan, ...]:
        """Plan every document before any work is done for one.

        Raises:
            enginesmith_contract.errors.PlanRefusedError: a document has no target for this machine.
        """
        plans = tuple(plan(engine, observed, datetime.now(UTC)) for engine in engines)
        for refused in plans:
            _require_target(refused)
        return plans

    def prepare_document(self, engine: InferenceEngine, planned: Plan, observed: Observed) -> PreparedDocument:
        """Fetch and prepare the model, unless the store has its preparation, and plan with what is known then.

        Raises:
            enginesmith_contract.errors.EnginesmithError: the model could not be had or used, or fits no target.
        """
        with scratch_folder(self.home) as work:
            preparation = prepare(
                planned.preparation,
                open_store(self.store),
                work,
                self.reporter,
                base=self.base,
                downloads=self.home / "downloads",
            )
        known = observed.model_copy(
            update={"source_digest": preparation.source_digest, "model_facts": preparation.facts}
        )
        final = plan(engine, with_preparation(known, engine), datetime.now(UTC))
        _require_target(final)
        return PreparedDocument(engine=engine, plan=final, preparation=preparation)

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
            manifest = build(planned.build, work, self.reporter)
        return BuiltEngine(document=document, target=target, manifest=manifest, was_stored=planned.stored)


@contextmanager
def open_machine(arguments: argparse.Namespace, *, build_for_absent_gpus: bool = False) -> Iterator[LocalMachine]:
    """Give this machine with progress on stderr; `arguments` has `file`, `home` and `store`."""
    home = state_folder(arguments.home)
    with open_reporter(os.environ.get(LOG_FORMAT, "auto"), sys.stderr) as reporter:
        yield LocalMachine(
            home=home,
            store=arguments.store or default_store_uri(home),
            base=arguments.file.absolute().parent,
            reporter=reporter,
            build_for_absent_gpus=build_for_absent_gpus,
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
