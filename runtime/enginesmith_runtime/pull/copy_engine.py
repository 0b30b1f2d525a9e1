"""An engine from one store into a folder that is a store of its own: blobs first, then the pointer."""

from pathlib import Path

from enginesmith_contract.allowed_plugins import AllowedPlugins
from enginesmith_contract.environment import PLUGINS_ALLOWED
from enginesmith_contract.errors import EngineRefusedError, StoreError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.pull_request import PullableEngine
from enginesmith_contract.store_layout import StoredFile, blob_name, engine_pointer
from enginesmith_runtime.progress import Reporter
from enginesmith_runtime.store.file_store import FileStore
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.records import parse_manifest_to_serve

__all__ = ["copy_engine"]


def copy_engine(
    store: Store, engine: PullableEngine, into: Path, reporter: Reporter, allowed: AllowedPlugins | None = None
) -> Manifest:
    """Copy one engine; what is there already is checked and replaced.

    Args:
        store: to copy from.
        engine: to copy.
        into: folder that becomes a file store.
        reporter: gets the stage "fetch".
        allowed: plugin libraries that its server may load; None: any.

    Raises:
        enginesmith_contract.errors.StoreError: the store lacks it, does not answer, or the disk is full.
        enginesmith_contract.errors.EngineRefusedError: what the store has is not what was built: `Tampered`,
            `DigestDiffers`, `KeyMismatch`, `ManifestUnreadable`; or its server may not load it: `PluginNotAllowed`.
    """
    reporter.begin("fetch", engine.engine_key[:12])
    pointer = engine_pointer(engine.engine_key)
    document = store.read_pointer(pointer)
    if document is None:
        raise StoreError(
            "the store has no such engine",
            where=f"{store.uri}, {pointer}",
            remedy="wait for its build, or look into the store's retention",
            reason="EngineMissing",
            retry=True,
        )
    manifest = _checked(document, engine, f"{store.uri}, {pointer}")
    _refuse_forbidden(manifest, allowed)
    references = tuple(reference.file for reference in manifest.references)
    files = (*manifest.files, *manifest.plugins, *references)
    _copy_blobs(store, files, into)
    # Replaced: a pod that starts again may find the pointer of an engine that has been built again meanwhile.
    FileStore(into).replace_pointer(pointer, document)
    reporter.end(digest=manifest.engine_digest, sizeBytes=sum(file.size_bytes for file in files))
    return manifest


def _copy_blobs(store: Store, files: tuple[StoredFile, ...], into: Path) -> None:
    # A blob's place in the new store is its path, so that it is digested where the server will read it.
    blobs = {file.digest: file.model_copy(update={"path": blob_name(file.digest)}) for file in files}
    try:
        store.get_files(blobs.values(), into)
    except StoreError as error:
        if error.reason != "Tampered":
            raise
        raise EngineRefusedError(
            "the engine is not what was built",
            where=error.where,
            why=error.why,
            remedy=error.remedy,
            reason="Tampered",
        ) from error


def _refuse_forbidden(manifest: Manifest, allowed: AllowedPlugins | None) -> None:
    forbidden = () if allowed is None else allowed.forbidden(manifest.key_inputs.plugins)
    if not forbidden:
        return
    named = ", ".join(digest[:12] for digest in forbidden)
    raise EngineRefusedError(
        "the engine has a plugin library that is not allowed here",
        where=f"engine {manifest.engine_key[:12]}",
        why=f"{named} is not among the digests that are ({PLUGINS_ALLOWED})",
        remedy="ask the administrator of the servers to allow the digest",
        reason="PluginNotAllowed",
    )


def _checked(document: bytes, engine: PullableEngine, where: str) -> Manifest:
    manifest = parse_manifest_to_serve(document, engine.engine_key, where)
    if engine.engine_digest not in (None, manifest.engine_digest):
        raise EngineRefusedError(
            "the store has another build of this engine",
            where=where,
            why=f"{engine.engine_digest} was verified, {manifest.engine_digest} is there",
            remedy="build the engine again; the store was altered, or two builds raced for its pointer",
            reason="DigestDiffers",
        )
    return manifest
