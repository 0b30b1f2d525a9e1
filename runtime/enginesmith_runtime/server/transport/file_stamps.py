"""What changes when a file is replaced."""

from pathlib import Path

__all__ = ["Stamp", "stamp"]

Stamp = tuple[int, int, int]


def stamp(path: Path) -> Stamp | None:
    """Return what changes with a file; a mounted Secret is replaced by a link to another folder. None: it is absent."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
