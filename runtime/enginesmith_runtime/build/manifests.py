"""The manifest of an engine out of what was asked, what was prepared and what was built."""

from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.store_layout import StoredFile, content_digest
from enginesmith_runtime.build.wire import ChildResult

__all__ = ["compose_manifest"]


def compose_manifest(
    request: BuildRequest,
    preparation: Preparation,
    result: ChildResult,
    files: tuple[StoredFile, ...],
    plugins: tuple[StoredFile, ...] = (),
    *,
    created_at: str,
) -> Manifest:
    """Return the manifest.

    Args:
        request: what was asked.
        preparation: what the engine was made of.
        result: what the child found.
        files: the engine's files as stored, the one to open first.
        plugins: libraries that the engine needs, in loading order, as stored.
        created_at: RFC 3339, UTC.
    """
    return Manifest(
        engine_key=request.engine_key,
        key_inputs=request.key_inputs,
        source_digest=preparation.source_digest,
        engine_digest=content_digest(files),
        files=files,
        inputs=result.inputs,
        outputs=result.outputs,
        profiles=preparation.profiles,
        batching=preparation.batching,
        toolchain=request.toolchain,
        hardware=result.hardware,
        runs_on=result.runs_on,
        device_memory_bytes=result.device_memory_bytes,
        timings=result.timings,
        verification=result.verification,
        precision=preparation.precision,
        own_precisions=preparation.own_precisions,
        rounding=preparation.rounding,
        references=preparation.references,
        inspector=result.inspector,
        plugins=plugins,
        structure_digest=preparation.structure_digest,
        refitted_from=result.refitted_from,
        notes=result.notes,
        created_at=created_at,
    )
