"""Copies an engine from one store into a folder that becomes a separate store: blobs first, then the pointer."""

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
    """Copy one engine. Existing files are checked and replaced.

    Args:
        store: Store to copy from.
        engine: Engine to copy.
        into: Folder that becomes a file store.
        reporter: Receives the stage "fetch".
        allowed: Plugin libraries that the server may load; None for any.

    Raises:
        enginesmith_contract.errors.StoreError: The store does not have the engine or does not answer, or the disk is
            full.
        enginesmith_contract.errors.EngineRefusedError: The stored engine is not the one that was built (`Tampered`,
            `DigestDiffers`, `KeyMismatch`, `ManifestUnreadable`), or the server may not load it (`PluginNotAllowed`).
    """
    reporter.begin("fetch", engine.engine_key[:12])
    pointer = engine_pointer(engine.engine_key)
    document = store.read_pointer(pointer)
    if document is None:
        raise StoreError(
            "the store has no such engine",
            where=f"{store.uri}, {pointer}",
            remedy="wait for its build, or check the store's retention",
            reason="EngineMissing",
            retry=True,
        )
    manifest = _checked(document, engine, f"{store.uri}, {pointer}")
    _refuse_forbidden(manifest, allowed)
    references = tuple(reference.file for reference in manifest.references)
    files = (*manifest.files, *manifest.plugins, *references)
    _copy_blobs(store, files, into)
    # Replace it, because a restarted pod may find the pointer of an engine that was rebuilt meanwhile.
    FileStore(into).replace_pointer(pointer, document)
    reporter.end(digest=manifest.engine_digest, sizeBytes=sum(file.size_bytes for file in files))
    return manifest


def _copy_blobs(store: Store, files: tuple[StoredFile, ...], into: Path) -> None:
    # A blob has its final path in the new store, so its digest is computed where the server will read it.
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
        why=f"{named} is not among the allowed digests ({PLUGINS_ALLOWED})",
        remedy="ask the administrator of the servers to allow the digest",
        reason="PluginNotAllowed",
    )


def _checked(document: bytes, engine: PullableEngine, where: str) -> Manifest:
    manifest = parse_manifest_to_serve(document, engine.engine_key, where)
    if engine.engine_digest not in (None, manifest.engine_digest):
        raise EngineRefusedError(
            "the store has another build of this engine",
            where=where,
            why=f"{engine.engine_digest} was verified, and the store has {manifest.engine_digest}",
            remedy="build the engine again; the store was altered, or two builds wrote its pointer at the same time",
            reason="DigestDiffers",
        )
    return manifest
