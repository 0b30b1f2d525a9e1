"""Loads the engine of a ServedModel. An engine is loaded only if its manifest fits the device and the library."""

import logging
from dataclasses import dataclass
from pathlib import Path

from enginesmith_contract.backend_options import options_in_key
from enginesmith_contract.backend_traits import traits
from enginesmith_contract.backends import Hardware
from enginesmith_contract.errors import EngineRefusedError, StoreError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.serve_request import BatchingOptions, QueueOptions, ServedModel
from enginesmith_contract.store_layout import engine_pointer
from enginesmith_contract.verification import VerificationStatus
from enginesmith_runtime.engines.device import detect_devices, host_hardware
from enginesmith_runtime.engines.interface import Engine, Loader
from enginesmith_runtime.engines.refusal import refuse_unless_fits
from enginesmith_runtime.engines.registry import loader
from enginesmith_runtime.progress import Reporter
from enginesmith_runtime.server.instance_pool import InstancePool
from enginesmith_runtime.server.model import LoadedModel
from enginesmith_runtime.server.profile_choice import ProfileTable
from enginesmith_runtime.server.response_cache import ResponseCache
from enginesmith_runtime.server.warm_up import verify_if_not_run, warm_up
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.open import open_store
from enginesmith_runtime.store.records import parse_manifest_to_serve

__all__ = ["Loading", "load_model"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Parameters of loading in addition to the model.

    Attributes:
        folder: Scratch folder for the engine's files while the server runs.
        queue_limit: Default number of requests that may wait for an instance of a model.
    """

    folder: Path
    queue_limit: int
    reporter: Reporter


def load_model(served: ServedModel, loading: Loading) -> LoadedModel:
    """Load, verify and warm up one engine.

    Raises:
        StoreError: The store cannot be read or does not have the engine.
        EngineRefusedError: The engine is damaged, does not fit this device or library, or does not run.
        VerificationError: The engine was not verified before, and its outputs are wrong.
    """
    reporter = loading.reporter
    reporter.begin("load", served.name)
    store = open_store(served.store)
    manifest = _read_manifest(store, served)
    loads = loader(manifest.toolchain.backend)
    _refuse_unless_loadable(manifest, loads)
    folder = loading.folder / served.name
    _get_files(store, manifest, folder)
    # An engine that is served by its key alone also runs with the options of its verification.
    options = {**options_in_key(manifest.key_inputs.flags), **served.backend_options}
    engine = loads.load(manifest, folder, options, instances=served.instances)
    reporter.end(model=served.name, engine=manifest.engine_key)
    verify_if_not_run(engine, folder, reporter)
    return _open_model(served, engine, folder, loading)


def _open_model(served: ServedModel, engine: Engine, folder: Path, loading: Loading) -> LoadedModel:
    manifest = engine.manifest
    loading.reporter.begin("warmUp", served.name)
    instances = [engine.open_instance() for _ in range(served.instances)]
    warm_up(manifest, instances, folder)
    queue_limit = loading.queue_limit if served.max_queued is None else served.max_queued
    loading.reporter.end(model=served.name, profiles=max(len(manifest.profiles), 1), instances=served.instances)
    batching = served.batching or BatchingOptions()
    model = LoadedModel(
        name=served.name,
        version=served.version,
        target=served.target,
        manifest=manifest,
        engine=engine,
        profiles=ProfileTable(manifest.inputs, manifest.profiles),
        inputs={spec.name: spec for spec in manifest.inputs},
        outputs={spec.name: spec for spec in manifest.outputs},
        pool=InstancePool(instances, queue_limit=queue_limit, name=served.name, batching=batching),
        batching=batching,
        queue=served.queue or QueueOptions(),
        cache=None if served.response_cache_bytes is None else ResponseCache(served.response_cache_bytes),
    )
    if model.why_not_joined:
        asked_for = served.batching is not None and served.batching.enabled
        level = logging.WARNING if asked_for else logging.INFO
        _log.log(level, "model %s: requests are not joined: %s", served.name, model.why_not_joined)
    return model


def _read_manifest(store: Store, served: ServedModel) -> Manifest:
    pointer = engine_pointer(served.engine_key)
    document = store.read_pointer(pointer)
    if document is None:
        raise StoreError(
            "the store has no such engine",
            where=f"{served.store}, {pointer}",
            remedy="build it first, or pass the store that contains it",
            reason="EngineMissing",
        )
    return parse_manifest_to_serve(document, served.engine_key, f"{served.store}, {pointer}")


def _refuse_unless_loadable(manifest: Manifest, loads: Loader) -> None:
    if manifest.verification.status is VerificationStatus.FAILED:
        raise EngineRefusedError(
            "the engine failed its verification",
            where=f"engine {manifest.engine_key[:12]}",
            why=manifest.verification.reason,
            remedy="build it with a wider precision or a looser limit",
            reason="VerificationFailed",
        )
    # Check the device first: NVIDIA's libraries abort the process if there is no driver.
    device = _find_device(manifest)
    refuse_unless_fits(manifest, device, loads.version())


def _find_device(manifest: Manifest) -> Hardware:
    backend = manifest.toolchain.backend
    if not traits(backend).runs_on_gpu:
        return host_hardware()
    devices = detect_devices()
    if not devices:
        raise EngineRefusedError(
            "this process sees no GPU",
            where=f"engine {manifest.engine_key[:12]}",
            why=f"a {backend} engine needs a GPU",
            remedy=f"serve it on a machine with {manifest.hardware.product or 'such a GPU'} and its driver",
            reason="NoGpu",
        )
    return devices[0]


def _get_files(store: Store, manifest: Manifest, folder: Path) -> None:
    # Samples judge an engine only once, on its first run.
    unjudged = manifest.verification.status is VerificationStatus.NOT_RUN
    references = tuple(one.file for one in manifest.references if unjudged or not one.is_sample)
    try:
        store.get_files((*manifest.files, *manifest.plugins, *references), folder)
    except StoreError as error:
        if error.reason != "Tampered":
            raise
        raise EngineRefusedError(
            "the engine is not what was built",
            where=error.where,
            why=error.what,
            remedy=f"{error.remedy}; the pointer is {store.uri}/{engine_pointer(manifest.engine_key)}",
            reason="Tampered",
        ) from error
