"""One engine: looked up, else built in a child process, verified and stored, the pointer last.

    pointer there? ── yes ──> judge again, return                    (nothing heavier than JSON is imported)
          │ no
    hold the right to build it, look again
    fetch plugins, lay out model, references, engine to refit ──> child: refit or build, verify ──> blobs ──> pointer

The store's pointer is written when everything that it names is durable, so a process killed anywhere leaves no half
engine; of two that race past a store without locks, the first pointer wins and both return it.
"""

import tempfile
from datetime import UTC, datetime
from os import getpid
from pathlib import Path

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import BuildError, StoreError
from enginesmith_contract.keys import engine_key
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import Preparation, describe_refusals
from enginesmith_contract.store_layout import engine_pointer, preparation_pointer
from enginesmith_contract.verification import check_outputs
from enginesmith_runtime.build.child_process import run_child
from enginesmith_runtime.build.manifests import compose_manifest
from enginesmith_runtime.build.plugin_libraries import PluginPlaces, fetch_plugins
from enginesmith_runtime.build.refit_bases import find_refit_base, remember_refit_base
from enginesmith_runtime.build.verify import judge, raise_if_failed
from enginesmith_runtime.build.wire import ChildJob, ChildResult
from enginesmith_runtime.engines.nvinfer.plugins import PLUGIN_FOLDER
from enginesmith_runtime.progress import Reporter
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.open import open_store
from enginesmith_runtime.store.records import parse_record, read_record

__all__ = ["build"]


def build(
    request: BuildRequest, work: Path, reporter: Reporter, *, plugins_from: PluginPlaces | None = None
) -> Manifest:
    """Return the engine's manifest, after building the engine unless the store has it.

    Args:
        request: what to build.
        work: a folder for scratch files, which are gone when this returns or raises.
        reporter: receives the stages `plugins`, `refit`, `build`, `verify` and `store`; may cancel.
        plugins_from: where plugin libraries may come from; None: from anywhere.

    Raises:
        SourceError: a plugin library is missing, is another one or cannot be had.
        SpecError: a plugin library is not allowed; `verification.outputs` names an output that there is not.
        BuildError: the key is not that of its inputs; the builder refused, failed, ran out of time or memory.
        VerificationError: the answers differ from the references; nothing was stored.
        StoreError: the store cannot be written, or lacks the preparation.
        CancelledBuildError: the reporter said so.
    """
    _check_key(request)
    store = open_store(request.store)
    pointer = engine_pointer(request.engine_key)
    stored = _find_engine(store, pointer, request)
    if stored is not None:
        return stored
    with store.exclusive(pointer):
        stored = _find_engine(store, pointer, request)
        if stored is not None:
            return stored
        preparation = _read_preparation(store, request)
        check_outputs(request.verification, (spec.name for spec in preparation.facts.outputs))
        _refuse_nodes(request, preparation)
        with tempfile.TemporaryDirectory(dir=work, prefix="build-") as folder:
            scratch = Path(folder)
            plugins = _fetch_plugins(request, scratch, reporter, plugins_from or PluginPlaces())
            return _build(store, _lay_out(store, request, preparation, scratch, plugins), scratch, reporter)


def _check_key(request: BuildRequest) -> None:
    computed = engine_key(request.key_inputs)
    if computed == request.engine_key:
        return
    raise BuildError(
        "the engine key is not that of its inputs",
        where="engineKey",
        why=f"the request says {request.engine_key}, its inputs give {computed}",
        remedy="use the same release of the operator and the builder",
        reason="KeyDiffers",
    )


def _find_engine(store: Store, pointer: str, request: BuildRequest) -> Manifest | None:
    manifest = read_record(store, pointer, Manifest)
    if manifest is None:
        return None
    # The limit is not in the key: a changed one judges what was measured, and rebuilds nothing.
    verification = judge(manifest, request.verification)
    raise_if_failed(verification)
    return manifest.model_copy(update={"verification": verification})


def _read_preparation(store: Store, request: BuildRequest) -> Preparation:
    pointer = preparation_pointer(request.key_inputs.preparation_key)
    preparation = read_record(store, pointer, Preparation)
    if preparation is None:
        raise StoreError(
            "the store lacks the preparation",
            where=pointer,
            remedy="prepare the model first (`enginesmith build` does)",
            reason="PreparationMissing",
        )
    return preparation


def _refuse_nodes(request: BuildRequest, preparation: Preparation) -> None:
    """End before the builder does, whose words name a node and no cure."""
    if traits(request.toolchain.backend).matrix is None or not preparation.refusals:
        return
    raise BuildError(
        "TensorRT does not take the model",
        where=preparation.model[0].path,
        why="\n".join(describe_refusals(preparation.refusals)),
        remedy="change the model as said, or use the backend onnxruntime",
        reason="UnsupportedOperators",
    )


def _fetch_plugins(request: BuildRequest, folder: Path, reporter: Reporter, places: PluginPlaces) -> tuple[Path, ...]:
    # The others have no plugins: TensorRT for RTX refuses the option, and ONNX Runtime's engines do without it.
    if not traits(request.toolchain.backend).plugins:
        return ()
    return fetch_plugins(request, folder / "plugins", reporter, places)


def _build(store: Store, job: ChildJob, folder: Path, reporter: Reporter) -> Manifest:
    result = run_child(job, folder, reporter, job.request.options.timeout_seconds)
    raise_if_failed(result.verification)
    reporter.begin("store")
    manifest = _put(store, job, result)
    reporter.end(digest=manifest.engine_digest)
    return manifest


def _lay_out(
    store: Store, request: BuildRequest, preparation: Preparation, folder: Path, plugins: tuple[Path, ...]
) -> ChildJob:
    output, references = folder / "engine", folder / "references"
    output.mkdir()
    references.mkdir()
    # ONNX Runtime and onnx refuse external weights that are links.
    model = store.get_files(preparation.model, folder / "model", private=len(preparation.model) > 1)
    if preparation.references:
        store.get_files((one.file for one in preparation.references), references)
    base = find_refit_base(store, request, preparation, folder / "base")
    return ChildJob(
        request=request,
        preparation=preparation,
        model=str(model),
        output=str(output),
        references=str(references),
        plugins=tuple(map(str, plugins)),
        refit_base=None if base is None else base.manifest,
        refit_plan="" if base is None else str(base.plan),
        answer=str(folder / "answer.json"),
        parent=getpid(),
    )


def _put(store: Store, job: ChildJob, result: ChildResult) -> Manifest:
    request, output = job.request, Path(job.output)
    files = store.put_files(output, [output / path for path in result.files])
    plugins = tuple(file for file in files if file.path.startswith(f"{PLUGIN_FOLDER}/"))
    created_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    manifest = compose_manifest(request, job.preparation, result, files, plugins, created_at=created_at)
    pointer = engine_pointer(request.engine_key)
    stored = parse_record(store.create_pointer(pointer, manifest.to_json()), Manifest, pointer)
    remember_refit_base(store, request, job.preparation, stored)
    return stored
