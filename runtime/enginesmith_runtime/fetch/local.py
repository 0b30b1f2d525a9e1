"""A model on the local disk. It is used in place, and copied only if its weights are links."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enginesmith_contract.errors import ModelError, SourceError
from enginesmith_contract.store_layout import StoredFile
from enginesmith_runtime.fetch.external_data import WeightsSpan, check_inside, missing_weights
from enginesmith_runtime.fetch.origin import Transfer
from enginesmith_runtime.fetch.reasons import SourceReason, unreadable_file
from enginesmith_runtime.local_files.digests import CHUNK_BYTES, OnBytes, digest_file

__all__ = ["LocalModel"]


class LocalModel:
    """The folder of one local model, which is also an `Origin`.

    Attributes:
        model: File name of the model.
    """

    def __init__(self, path: Path) -> None:
        """Check that the file exists and can be read.

        Raises:
            enginesmith_contract.errors.SourceError: `NotFound`, `AccessDenied`.
            enginesmith_contract.errors.ModelError: `NotOnnx` for a folder of another framework.
        """
        self.model = path.name
        self._folder = path.parent
        with _translated(path):
            if path.is_dir():
                raise _is_folder(path)
            if not path.is_file():
                raise FileNotFoundError(errno.ENOENT, "not a regular file" if path.exists() else "no such file")
            path.open("rb").close()

    def describe(self, name: str) -> str:
        """Return the file's path."""
        return str(self._folder / name)

    def has_linked_weights(self, spans: tuple[WeightsSpan, ...]) -> bool:
        """Whether a weights file is a symbolic link or one of several hard links, which onnx refuses to read.

        Raises:
            enginesmith_contract.errors.SourceError: `PathEscapes`, `ExternalDataMissing`.
        """
        linked = False
        for span in {span.file: span for span in reversed(spans)}.values():
            path = check_inside(self._folder, span, self.describe(self.model))
            if not path.is_file():
                raise missing_weights(span.file, span.tensor, self.describe(self.model))
            linked = linked or path.is_symlink() or path.stat().st_nlink > 1
        return linked

    def size_bytes(self, name: str) -> int:
        """Return a file's size."""
        return (self._folder / name).stat().st_size

    def digest(self, name: str, on_bytes: OnBytes) -> StoredFile:
        """Read a file to its end.

        Raises:
            enginesmith_contract.errors.SourceError: `AccessDenied`, or a disk error.
        """
        path = self._folder / name
        with _translated(path):
            return digest_file(path, name=name, on_bytes=on_bytes)

    @contextmanager
    def open(self, name: str, *, offset: int, validator: str | None) -> Iterator[Transfer]:
        """Read a file; see `Origin.open`."""
        path = self._folder / name
        with _translated(path), path.open("rb") as stream:
            status = path.stat()
            mark = f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
            start = stream.seek(offset if validator == mark else 0)
            chunks = iter(lambda: stream.read(CHUNK_BYTES), b"")
            yield Transfer(offset=start, total_bytes=status.st_size, validator=mark, chunks=chunks)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise unreadable_file(path, error, "model") from error


def _is_folder(path: Path) -> SourceError | ModelError:
    if (path / "saved_model.pb").exists():
        return ModelError(
            "the folder is a TensorFlow SavedModel, not an ONNX model",
            where=str(path),
            remedy="convert it with tf2onnx",
            reason="NotOnnx",
        )
    if any(path.glob("*.pdmodel")) or any(path.glob("*.pdiparams")):
        return ModelError(
            "the folder is a PaddlePaddle model, not an ONNX model",
            where=str(path),
            remedy="convert it with paddle2onnx",
            reason="NotOnnx",
        )
    models = sorted(file.name for file in path.glob("*.onnx"))
    return SourceError(
        "the path is a folder",
        where=str(path),
        why=f"it contains {', '.join(models[:3])}" if models else "it contains no .onnx file",
        remedy="name the .onnx file",
        reason=SourceReason.NOT_FOUND,
    )
