"""Ready means: an inference succeeded on every profile in this process, on every instance.

The first run of a profile is where an engine takes its memory and picks its kernels; better now than under a client.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from enginesmith_contract.errors import EngineRefusedError, EnginesmithError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.profiles import ShapeRange
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_contract.text import one_line
from enginesmith_contract.verification import VerificationStatus
from enginesmith_runtime.engines.interface import Array, Engine, Instance
from enginesmith_runtime.progress import Reporter
from enginesmith_runtime.server.profile_choice import ProfileTable

__all__ = ["verify_if_not_run", "warm_up"]


def verify_if_not_run(engine: Engine, folder: Path, reporter: Reporter) -> None:
    """Hold the engine's answers against the stored references where nothing could when it was built.

    Args:
        engine: loaded.
        folder: holds the references' files.
        reporter: in the stage `verify`.

    Raises:
        VerificationError: an output differs by more than the manifest's limit.
    """
    manifest = engine.manifest
    if manifest.verification.status is not VerificationStatus.NOT_RUN:
        return
    # Most engines were verified where they were built, and their servers never need this.
    from enginesmith_contract.verification import VerificationPolicy  # noqa: PLC0415
    from enginesmith_runtime.build import failed_gate, verify  # noqa: PLC0415 - few servers need them

    reporter.begin("verify")
    stored = manifest.verification
    policy = VerificationPolicy(
        metric=stored.metric,
        limit=stored.limit,
        mismatches=stored.mismatches,
        agreement=stored.agreement,
        outputs=stored.outputs,
    )
    measurement = verify.measure(engine, manifest.references, folder, reporter, policy)
    known = (stored.first_fall, stored.shortfall)
    verification = verify.judge_measurement(measurement, policy, manifest.arithmetic, *known)
    failed_gate.raise_if_failed(verification, manifest.arithmetic)
    reporter.end(references=len(manifest.references))


def warm_up(manifest: Manifest, instances: Sequence[Instance], folder: Path) -> None:
    """Run every profile once on every instance, with the reference inputs at `opt` where there are any.

    Raises:
        EngineRefusedError: an inference failed.
    """
    outputs = [spec.name for spec in manifest.outputs]
    table = ProfileTable(manifest.inputs, manifest.profiles)
    for index, profile in enumerate(table.profiles):
        inputs = _reference_inputs(manifest, profile.name, folder) or _zero_inputs(manifest, table, index)
        for instance in instances:
            try:
                instance.infer(inputs, profile=index, outputs=outputs)
            except EnginesmithError:
                raise
            except Exception as error:
                raise EngineRefusedError(
                    "the first inference failed",
                    where=f"engine {manifest.engine_key[:12]}, profile {profile.name}",
                    why=one_line(str(error)),
                    remedy="build the engine again, or narrow the profile",
                    reason="WarmUpFailed",
                ) from error


def _reference_inputs(manifest: Manifest, profile: str, folder: Path) -> Mapping[str, Array] | None:
    for reference in manifest.references:
        if reference.profile == profile and reference.point == "opt" and not reference.is_sample:
            with np.load(folder / reference.file.path, allow_pickle=False) as archive:
                return {spec.name: _restore(archive[f"input:{spec.name}"], spec) for spec in manifest.inputs}
    return None


def _restore(array: Array, spec: TensorSpec) -> Array:
    if spec.dtype is not DType.BYTES:
        return np.asarray(array, order="C")
    # Text is stored in numpy's fixed-width types, for pickles are code.
    values = np.empty(array.size, dtype=np.object_)
    values[:] = [value.encode() if isinstance(value, str) else bytes(value) for value in array.ravel().tolist()]
    return values.reshape(array.shape)


def _zero_inputs(manifest: Manifest, table: ProfileTable, index: int) -> dict[str, Array]:
    """Return zeros at the profile's opt: a value that every embedding and every mask supports."""
    return {spec.name: _zeros(spec, table.ranges(spec.name)[index]) for spec in manifest.inputs}


def _zeros(spec: TensorSpec, sizes: ShapeRange) -> Array:
    if sizes.values is not None:
        return np.array(sizes.values.opt, spec.dtype.numpy).reshape(sizes.opt)
    # A dimension that no profile names is open: one element will do.
    shape = tuple(1 if value < 0 else value for value in sizes.opt)
    return np.full(shape, b"", np.object_) if spec.dtype is DType.BYTES else np.zeros(shape, spec.dtype.numpy)
