"""Warm-up of an engine. A model is Ready when an inference has succeeded on every profile of every instance.

In the first run of a profile an engine allocates memory and selects kernels. The warm-up saves a client this delay.
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
    """Verify the engine with the stored references if this was not possible during the build.

    Args:
        engine: Loaded engine.
        folder: Folder with the files of the references.
        reporter: Reporter in the stage `verify`.

    Raises:
        VerificationError: An output differs by more than the limit of the manifest.
    """
    manifest = engine.manifest
    if manifest.verification.status is not VerificationStatus.NOT_RUN:
        return
    # Most engines are verified during their build, so their servers do not need this.
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
    """Run every profile once on every instance, with the reference inputs at `opt` if there are any.

    Raises:
        EngineRefusedError: An inference failed.
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
    # Text is stored in fixed-width types of numpy, because pickles can execute code.
    values = np.empty(array.size, dtype=np.object_)
    values[:] = [value.encode() if isinstance(value, str) else bytes(value) for value in array.ravel().tolist()]
    return values.reshape(array.shape)


def _zero_inputs(manifest: Manifest, table: ProfileTable, index: int) -> dict[str, Array]:
    """Return zeros in the shapes of the profile's opt. Every embedding and every mask supports zeros."""
    return {spec.name: _zeros(spec, table.ranges(spec.name)[index]) for spec in manifest.inputs}


def _zeros(spec: TensorSpec, sizes: ShapeRange) -> Array:
    if sizes.values is not None:
        return np.array(sizes.values.opt, spec.dtype.numpy).reshape(sizes.opt)
    # An open dimension without a profile gets one element.
    shape = tuple(1 if value < 0 else value for value in sizes.opt)
    return np.full(shape, b"", np.object_) if spec.dtype is DType.BYTES else np.zeros(shape, spec.dtype.numpy)
