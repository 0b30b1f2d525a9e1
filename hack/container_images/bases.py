"""What the images are built on: an image with Python 3.11 or later."""

import hashlib
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from development_cluster.commands import run
from development_cluster.errors import ClusterError
from development_cluster.layout import CONTROL

from container_images.builders import Builder

__all__ = ["choose_base", "debian_base", "make_debian_base"]

_PUBLIC: Final = "docker.io/library/python:3.12-slim"
_DEBIAN: Final = "bookworm"
_FOLDER: Final = Path(__file__).parents[1] / "development_cluster" / "data" / "python"


def choose_base(builder: Builder, wanted: str | None) -> str:
    """Return the base by digest: the one that is wanted, else Docker Hub's Python, else a Debian that is made here.

    Args:
        builder: that pulls it.
        wanted: an image; None: any.

    Raises:
        ClusterError: the wanted one cannot be pulled.
    """
    if wanted is not None:
        return wanted if builder.has(wanted) else builder.pull(wanted)
    try:
        return builder.pull(_PUBLIC)
    except ClusterError:
        print(f"{_PUBLIC} cannot be pulled: building on Debian's Python", file=sys.stderr)
    reference = debian_base()
    if not builder.has(reference):
        make_debian_base(builder, reference)
    return reference


def debian_base() -> str:
    """Return the name of the image with Debian's Python; it is also that in the development cluster's registry."""
    parts = [(_FOLDER / name).read_bytes() for name in ("Dockerfile", "make-base.sh")]
    digest = hashlib.sha256(b"".join(parts) + _DEBIAN.encode()).hexdigest()[:16]
    return f"{CONTROL.registry}/python:{digest}"


def make_debian_base(builder: Builder, reference: str) -> None:
    """Make that image from Debian's packages; needs root and mmdebstrap."""
    with TemporaryDirectory(prefix="enginesmith-base-") as folder:
        run([_FOLDER / "make-base.sh", _DEBIAN, Path(folder) / "base.tar"], log=builder.log)
        builder.build(reference, dockerfile=_FOLDER / "Dockerfile", context=Path(folder), arguments={})
