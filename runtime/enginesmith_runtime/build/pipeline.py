"""One engine: looked up, else built in a child process, verified and stored, the pointer last.

    pointer there? ── yes ──> judge again, return                    (nothing heavier than JSON is imported)
          │ no
    hold the right to build it, look again
    fetch plugins ──> child starts its library; model, references, engine to refit are laid out meanwhile,
          │           as soon as the store has the preparation, where the build may wait for it
    child: refit or build, verify ──> blobs ──> pointer

The store's pointer is written when everything that it names is durable, so a process killed anywhere leaves no half
engine; of two that race past a store without locks, the first pointer wins and both return it.
"""

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import BuildError
from enginesmith_contract.keys import engine_key
from enginesmith_contract.manifest import Manifest, Timings
from enginesmith_contract.preparation import Preparation, describe_refusals
from enginesmith_contract.store_layout import engine_pointer
from enginesmith_contract.verification import check_outputs
from enginesmith_runtime.build.child import run_child
from enginesmith_runtime.build.failed_gate import raise_if_failed
from enginesmith_runtime.build.manifests import compose_manifest
from enginesmith_runtime.build.metric_gate import (
    MetricFolders,
    folders_for,
    leave_candidate,
    require_run,
)
from enginesmith_runtime.build.plugin_libraries import PluginPlaces, fetch_plugins
from enginesmith_runtime.build.preparations import await_preparation, find_preparation, read_preparation
from enginesmith_runtime.build.provenance import describe_build
from enginesmith_runtime.build.refit_bases import find_refit_base, remember_refit_base
from enginesmith_runtime.build.timing_caches import FolderTimingCache, StoredTimingCache, timing_cache_place
from enginesmith_runtime.build.verify import judge
from enginesmith_runtime.build.wire import ChildJob, ChildResult
from enginesmith_runtime.engines.device import detect_devices
from enginesmith_runtime.engines.nvinfer.plugins import PLUGIN_FOLDER
from enginesmith_runtime.progress import Reporter
from enginesmith_runtime.store.engines import create_engine, find_engine
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.manifest_signatures import require_signing_key
from enginesmith_runtime.store.open import open_store

__all__ = ["build", "measure_timings", "publish"]


def build(
    request: BuildRequest,
    work: Path,
    reporter: Reporter,
    *,
    plugins_from: PluginPlaces | None = None,
    metric: MetricFolders | None = None,
    wait_seconds: float = 0.0,
) -> Manifest:
    """Return the engine's manifest, after building the engine unless the store has it.

    Args:
        request: what to build.
        work: a folder for scratch files, which are gone when this returns or raises.
        reporter: receives the stages `plugins`, `prepare`, `refit`, `build`, `verify` and `store`; may cancel.
        plugins_from: where plugin libraries may come from; None: from anywhere.
        metric: where a user's metric finds its samples; if the request has a metric, the engine gets no pointer here,
            and `verdict` writes it. None: nothing here runs a metric.
        wait_seconds: how long to wait for a preparation that the store lacks. The builder's library starts meanwhile.

    Raises:
        SourceError: a plugin library is missing, is another one or cannot be had.
        SpecError: a plugin library is not allowed; `verification.outputs` names an output that there is not; the
            request has a metric that cannot run.
        BuildError: the key is not that of its inputs; the builder refused, failed, ran out of time or memory; the wait
            for the preparation was too short.
        VerificationError: the answers differ from the references; nothing was stored.
        StoreError: the store cannot be written, or lacks the preparation.
        CancelledBuildError: the reporter said so.
    """
    _check_key(request)
    started_at = _now()
    metric = folders_for(request.verification.metric_container, metric)
    store = open_store(request.store)
    pointer = engine_pointer(request.engine_key)
    stored = _find_engine(store, request)
    if stored is not None and metric is None:
        return stored
    if metric is None:
        require_signing_key()
    with store.exclusive(pointer):
        stored = _find_engine(store, request)
        if stored is not None and metric is None:
            return stored
        prepared = _when_prepared(store, request, reporter, wait_seconds)
        with tempfile.TemporaryDirectory(dir=work, prefix="build-") as folder:
            scratch = Path(folder)
            if stored is not None and metric is not None:
                return _run_again(store, request, prepared(), scratch, stored, metric, reporter)
            plugins = _fetch_plugins(request, scratch, reporter, plugins_from or PluginPlaces())
            return _build(store, request, prepared, scratch, plugins, reporter, started_at, metric)


def measure_timings(
    request: BuildRequest, work: Path, reporter: Reporter, *, plugins_from: PluginPlaces | None = None
) -> Timings:
    """Build an engine for what its builder measures alone: the timing cache is stored, the engine is not.

    Args and errors are those of `build`; nothing is verified.
    """
    _check_key(request)
    store = open_store(request.store)
    preparation = read_preparation(store, request)
    _refuse_nodes(request, preparation)
    with tempfile.TemporaryDirectory(dir=work, prefix="build-") as folder:
        scratch = Path(folder)
        plugins = _fetch_plugins(request, scratch, reporter, plugins_from or PluginPlaces())
        alone = preparation.model_copy(update={"references": ()})

        def lay_out() -> ChildJob:
            return _lay_out(store, request, alone, scratch, plugins).model_copy(update={"refit_base": None})

        return _run(store, request, lay_out, scratch, reporter)[1].timings


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


def _find_engine(store: Store, request: BuildRequest) -> Manifest | None:
    manifest = find_engine(store, request.engine_key)
    if manifest is None:
        return None
    # The limit is not in the key: a changed one judges what was measured, and rebuilds nothing.
    verification = judge(manifest, request.verification)
    raise_if_failed(verification, manifest.arithmetic)
    return manifest.model_copy(update={"verification": verification})


def _when_prepared(
    store: Store, request: BuildRequest, reporter: Reporter, wait_seconds: float
) -> Callable[[], Preparation]:
    """Return what gives the preparation: one that is there is checked at once, before a builder starts."""
    known = find_preparation(store, request) if wait_seconds else read_preparation(store, request)
    if known is not None:
        _check_preparation(request, known)

    def prepared() -> Preparation:
        if known is not None:
            return known
        late = await_preparation(store, request, reporter, seconds=wait_seconds)
        _check_preparation(request, late)
        return late

    return prepared


def _check_preparation(request: BuildRequest, preparation: Preparation) -> None:
    check_outputs(request.verification, (spec.name for spec in preparation.facts.outputs))
    _refuse_nodes(request, preparation)


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


def _build(
    store: Store,
    request: BuildRequest,
    prepared: Callable[[], Preparation],
    folder: Path,
    plugins: tuple[Path, ...],
    reporter: Reporter,
    started_at: str,
    metric: MetricFolders | None,
) -> Manifest:
    def lay_out() -> ChildJob:
        job = _lay_out(store, request, prepared(), folder, plugins)
        return job if metric is None else job.model_copy(update={"metric": str(metric.data)})

    job, result = _run(store, request, lay_out, folder, reporter)
    raise_if_failed(result.verification, job.preparation.arithmetic)
    if metric is not None:
        require_run(result.verification)
    reporter.begin("store")
    manifest = _put(store, job, result, started_at)
    reporter.end(digest=manifest.engine_digest)
    if metric is None:
        return publish(store, request, job.preparation, manifest)
    leave_candidate(metric, manifest)
    return manifest


def _run_again(
    store: Store,
    request: BuildRequest,
    preparation: Preparation,
    folder: Path,
    stored: Manifest,
    metric: MetricFolders,
    reporter: Reporter,
) -> Manifest:
    """Run a stored engine on the samples of the metric, which may be another one than when the engine was built."""

    def lay_out() -> ChildJob:
        references = folder / "references"
        references.mkdir()
        store.get_files((one.file for one in preparation.references), references)
        store.get_files(stored.files, folder / "engine")
        return ChildJob(
            request=request,
            preparation=preparation,
            model="",
            output=str(folder / "engine"),
            references=str(references),
            answer=str(folder / "answer.json"),
            stored=stored,
            metric=str(metric.data),
        )

    job, result = run_child(request, lay_out, folder, reporter)
    raise_if_failed(result.verification, job.preparation.arithmetic)
    require_run(result.verification)
    manifest = stored.model_copy(update={"verification": result.verification})
    leave_candidate(metric, manifest)
    return manifest


def _run(
    store: Store, request: BuildRequest, lay_out: Callable[[], ChildJob], folder: Path, reporter: Reporter
) -> tuple[ChildJob, ChildResult]:
    """Run the child with the timing caches of the store; what it measured is stored however it ended."""
    timings = FolderTimingCache(folder / "timings")
    stored: StoredTimingCache | None = None

    def hand_over() -> ChildJob:
        nonlocal stored
        stored = _timing_caches(store, request, folder)
        job = lay_out()
        if stored is None:
            return job
        timings.fetch(stored)
        return job.model_copy(update={"timings": str(folder / "timings")})

    problem = ""
    try:
        job, result = run_child(request, hand_over, folder, reporter)
    finally:
        if stored is not None:
            problem = timings.store(stored)
    if problem:
        result = result.model_copy(update={"notes": (*result.notes, f"the timing cache was not stored: {problem}")})
    return job, result


def _timing_caches(store: Store, request: BuildRequest, work: Path) -> StoredTimingCache | None:
    """Return the caches of this machine's GPU, the first as CUDA takes it; None: nothing is measured on one."""
    if not traits(request.toolchain.backend).timing_cache:
        return None
    device = next(iter(detect_devices()), None)
    folder = None if device is None else timing_cache_place(device, request.toolchain.version)
    return None if folder is None else StoredTimingCache(store, folder, work)


def _lay_out(
    store: Store, request: BuildRequest, preparation: Preparation, folder: Path, plugins: tuple[Path, ...]
) -> ChildJob:
    output, references = folder / "engine", folder / "references"
    output.mkdir()
    references.mkdir()
    # ONNX Runtime and onnx refuse external weights that are links.
    files = preparation.files_for(request.toolchain.backend)
    model = store.get_files(files, folder / "model", private=len(files) > 1)
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
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _put(store: Store, job: ChildJob, result: ChildResult, started_at: str) -> Manifest:
    request, output = job.request, Path(job.output)
    files = store.put_files(output, [output / path for path in result.files])
    plugins = tuple(file for file in files if file.path.startswith(f"{PLUGIN_FOLDER}/"))
    ended_at = _now()
    manifest = compose_manifest(request, job.preparation, result, files, plugins, created_at=ended_at)
    provenance = describe_build(manifest, request, started_at, ended_at)
    return manifest.model_copy(update={"provenance": provenance})


def publish(store: Store, request: BuildRequest, preparation: Preparation, manifest: Manifest) -> Manifest:
    """Write the pointer of an engine whose files are stored, signed where there is a key; return the stored engine."""
    stored = create_engine(store, manifest)
    remember_refit_base(store, request, preparation, stored)
    return stored
