"""What a user's metric reads and writes: samples with both outputs, an index of them, and the result.

The container that reads and writes them is the user's, so what it leaves is read as data of a stranger.
"""

import os
import stat
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from enginesmith_contract.errors import VerificationError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.metric_container import INDEX_FILE, MOST_RESULT_BYTES, MetricIndex, MetricSample
from enginesmith_contract.preparation import ReferenceSet
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.engines.interface import Array

__all__ = ["MetricSamples", "read_result"]

_KINDS: Final = ("inputs", "reference", "engine")


class MetricSamples:
    """Writes the samples of one engine: the held-out ones if there are any, else all references."""

    def __init__(self, folder: Path, references: Iterable[ReferenceSet]) -> None:
        every = tuple(references)
        held_out = tuple(one for one in every if one.is_sample)
        self._folder = folder
        self._held_out = bool(held_out)
        self._wanted = held_out or every
        self._samples: list[MetricSample] = []
        for kind in _KINDS:
            (folder / kind).mkdir(parents=True, exist_ok=True)

    def add(
        self,
        reference: ReferenceSet,
        inputs: Mapping[str, Array],
        expected: Mapping[str, Array],
        answers: Mapping[str, Array],
        outputs: Iterable[TensorSpec],
    ) -> None:
        """Write one sample, unless it is not wanted."""
        if reference not in self._wanted:
            return
        dtypes = {spec.name: spec.dtype for spec in outputs}
        name = f"{len(self._samples):04d}.npz"
        _write(self._folder / "inputs" / name, inputs, {})
        _write(self._folder / "reference" / name, expected, {})
        _write(self._folder / "engine" / name, {output: answers[output] for output in expected}, dtypes)
        paths = {kind: f"{kind}/{name}" for kind in _KINDS}
        self._samples.append(MetricSample(name=reference.point, profile=reference.profile, **paths))

    def finish(self, manifest: Manifest) -> None:
        """Write the index: there is one if, and only if, all samples are there."""
        index = MetricIndex(
            engine_key=manifest.engine_key,
            precision=manifest.precision.default.value,
            held_out=self._held_out,
            samples=tuple(self._samples),
        )
        (self._folder / INDEX_FILE).write_bytes(index.to_json())


def read_result(path: Path) -> bytes:
    """Return what a metric wrote, one byte more than it may have at most.

    Raises:
        VerificationError: there is no regular file.
    """
    try:
        # A link could name a file that the metric cannot read itself, and a pipe would never end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _missing(path, error.strerror or str(error)) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _missing(path, "it is not a regular file")
        return os.read(descriptor, MOST_RESULT_BYTES + 1)
    finally:
        os.close(descriptor)


def _missing(path: Path, why: str) -> VerificationError:
    return VerificationError(
        "the metric ended and left no result",
        where="verification.metricContainer",
        why=f"{path}: {why}",
        remedy=f"let the container write {path}",
    )


def _write(path: Path, arrays: Mapping[str, Array], dtypes: Mapping[str, DType]) -> None:
    """Write an .npz file; numpy's own function refuses tensors named `file`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, _plain(array, dtypes.get(name)), allow_pickle=False)


def _plain(array: Array, dtype: DType | None) -> Array:
    """Return values that numpy alone reads: BF16 as FP32, text as UTF-8."""
    if dtype is DType.BF16 and array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind != "O":
        return array
    texts = [one.encode() if isinstance(one, str) else one for one in array.ravel().tolist()]
    return np.array(texts, dtype=np.bytes_).reshape(array.shape)
