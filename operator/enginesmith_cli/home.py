"""The folder of local mode, named by the environment and shared by every command.

<home>/store/       the default engine store
<home>/downloads/   models that were fetched
<home>/digests/     of local models, so that an unchanged one is not read again
<home>/gates/       why engines failed their gate, where the document has another precision
<home>/work/        scratch space of running commands; each removes its own
<home>/faults/      tracebacks of Enginesmith's own faults
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enginesmith_cli.signals import removed_at_the_latest
from enginesmith_contract.environment import STATE_DIR, STORE_URI
from enginesmith_contract.errors import StoreError

__all__ = ["default_store_uri", "scratch_folder", "state_folder"]


def state_folder(asked: str | None = None) -> Path:
    """Return the home: `asked`, else $ENGINESMITH_HOME, else enginesmith in $XDG_CACHE_HOME or ~/.cache."""
    named = asked or os.environ.get(STATE_DIR)
    if named:
        return Path(named).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "enginesmith"


def default_store_uri(home: Path) -> str:
    """Return $ENGINESMITH_STORE, else the store inside the home."""
    return os.environ.get(STORE_URI) or str(home / "store")


@contextmanager
def scratch_folder(home: Path) -> Iterator[Path]:
    """Create a folder for downloads in progress and the builder's output; it is removed whenever the command ends.

    Raises:
        StoreError: the home cannot be written.
    """
    work = home / "work"
    try:
        work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=work, prefix=f"{os.getpid()}-"))
    except OSError as error:
        raise StoreError(
            "the local folder cannot be written",
            where=str(work),
            why=error.strerror or str(error),
            remedy=f"give a writable folder with --home or {STATE_DIR}",
            reason="HomeNotWritable",
        ) from error
    with removed_at_the_latest(folder):
        yield folder
