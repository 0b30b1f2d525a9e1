"""Files of calibration data: in a folder, in an archive, or a single file. They are opened one at a time.

Folders and archives are read in place and never unpacked as a whole. A compressed tar archive can only be read
forwards, so its files are read in its order. Only there, and for an .npz file in an archive, one member at a time is
copied to the scratch folder.
"""

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from tempfile import SpooledTemporaryFile
from typing import IO, Final, Protocol

from enginesmith_contract.calibration import Calibration
from enginesmith_contract.errors import SpecError

__all__ = ["ARCHIVES", "ARRAYS", "IMAGES", "RAW", "DataFiles", "open_files", "seekable", "select_files", "unreadable"]

ARCHIVES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
ARRAYS: Final = (".npz", ".npy")
RAW: Final = (".bin", ".raw")
IMAGES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
# Larger members are written to the disk.
_SPOOLED_BYTES: Final = 32 << 20
_ERRORS: Final = (
    OSError,
    EOFError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
)


class DataFiles(Protocol):
    """Files with calibration data.

    Attributes:
        names: Relative paths in the cheapest order for reading.
        where: Path of the folder, the archive or the file, for messages.
        is_random: Whether files can be read from any offset without additional cost.
    """

    names: tuple[str, ...]
    where: str
    is_random: bool

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        ...


def select_files(names: Iterable[str], calibration: Calibration) -> list[str]:
    """Return the sorted files of the first `max_samples` samples in the order of their names.

    The name of a sample ends at the first dot: `a.ids.npy` and `a.mask.npy` are inputs of one sample.
    """
    data = sorted(name for name in names if _is_data(name))
    keys = sorted({_key(name) for name in data})[: calibration.max_samples]
    wanted = set(keys)
    return [name for name in data if _key(name) in wanted]


@contextmanager
def open_files(path: Path) -> Iterator[DataFiles]:
    """Open a folder, an archive or a single file.

    Raises:
        enginesmith_contract.errors.SpecError: `CalibrationDataUnreadable`.
    """
    with ExitStack() as stack:
        with unreadable(path.name):
            files = _open(path, stack)
        yield files


@contextmanager
def unreadable(where: str) -> Iterator[None]:
    """Translate errors of file and archive readers to a SpecError with the file."""
    try:
        yield
    except _ERRORS as error:
        raise SpecError(
            "the calibration data cannot be read",
            where=where,
            why=str(error) or type(error).__name__,
            remedy="write the file again",
            reason="CalibrationDataUnreadable",
        ) from error


@contextmanager
def seekable(files: DataFiles, name: str, scratch: Path) -> Iterator[IO[bytes]]:
    """Open a file for random access, as .npz files need it."""
    with files.open(name) as stream:
        if files.is_random:
            yield stream
            return
        with SpooledTemporaryFile(max_size=_SPOOLED_BYTES, dir=str(scratch)) as copy:
            shutil.copyfileobj(stream, copy)
            copy.seek(0)
            yield copy


class _FolderFiles:
    def __init__(self, folder: Path, names: Iterable[str], where: str) -> None:
        self._folder = folder
        self.names = tuple(sorted(names))
        self.where = where
        self.is_random = True

    def open(self, name: str) -> IO[bytes]:
        return (self._folder / name).open("rb")


class _ZipFiles:
    def __init__(self, archive: zipfile.ZipFile, where: str) -> None:
        self._archive = archive
        self.names = tuple(sorted(member.filename for member in archive.infolist() if not member.is_dir()))
        self.where = where
        self.is_random = False

    def open(self, name: str) -> IO[bytes]:
        return self._archive.open(name)


class _TarFiles:
    def __init__(self, archive: tarfile.TarFile, where: str) -> None:
        self._archive = archive
        files = (member for member in archive.getmembers() if member.isreg())
        # `tar -C folder .` writes ./name.
        self._members = {PurePosixPath(member.name).as_posix(): member for member in files}
        self.names = tuple(self._members)
        self.where = where
        self.is_random = where.lower().endswith(".tar")

    def open(self, name: str) -> IO[bytes]:
        stream = self._archive.extractfile(self._members[name])
        if stream is None:
            raise AssertionError(name)
        return stream


def _open(path: Path, stack: ExitStack) -> DataFiles:
    name = path.name.lower()
    if path.is_dir():
        found = (file for file in path.rglob("*") if file.is_file())
        return _FolderFiles(path, (file.relative_to(path).as_posix() for file in found), path.name)
    if name.endswith(".zip"):
        return _ZipFiles(stack.enter_context(zipfile.ZipFile(path)), path.name)
    if name.endswith(ARCHIVES):
        return _TarFiles(stack.enter_context(tarfile.open(path)), path.name)
    if not path.is_file():
        raise FileNotFoundError(2, "no such file")
    return _FolderFiles(path.parent, [path.name], path.name)


def _is_data(name: str) -> bool:
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    return not hidden and name.lower().endswith((*ARRAYS, *RAW, *IMAGES))


def _key(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.parent / path.name.partition(".")[0])
