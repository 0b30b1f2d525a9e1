"""Paths that are not regular files, and must not be read as such."""

import stat
from pathlib import Path
from typing import Final

__all__ = ["what_it_is"]

_KINDS: Final = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_DESCRIPTORS: Final = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")


def what_it_is(path: Path) -> str:
    """Return the kind of a path that is neither a file nor a folder ("a named pipe"); empty if it can be opened.

    Opening a named pipe blocks until another process writes to it, which may never happen. A path that a shell has
    already opened (`<(command)`, /dev/stdin) has a writer.

    Raises:
        OSError: there is nothing at the path.
    """
    if str(path).startswith(_DESCRIPTORS):
        return ""
    mode = path.stat().st_mode
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "")
