"""The product's images: what they are made of, and a tag that changes with it."""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from development_cluster.layout import ROOT

from container_images.builders import Builder
from container_images.toolchains import ToolchainRow

__all__ = ["OPERATOR", "RUNTIME", "ProductImage", "Snapshot", "with_toolchain"]


@dataclass(frozen=True, kw_only=True)
class ProductImage:
    """An image of the product.

    Attributes:
        name: in the registry.
        dockerfile: relative to the repository.
        sources: folders that it copies, relative to the repository.
        locks: the locked dependencies, relative to the repository.
        arguments: build arguments in addition to BASE.
    """

    name: str
    dockerfile: str
    sources: tuple[str, ...]
    locks: tuple[str, ...]
    arguments: tuple[tuple[str, str], ...] = ()

    @contextmanager
    def snapshot(self, base: str) -> Iterator["Snapshot"]:
        """Copy what the image is made of: others may write to the checkout while it is built."""
        with TemporaryDirectory(prefix="enginesmith-image-") as name:
            folder = Path(name)
            for path in (self.dockerfile, *self.locks, ".dockerignore"):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / path, folder / path)
            for path in self.sources:
                shutil.copytree(ROOT / path, folder / path, ignore=shutil.ignore_patterns("__pycache__"))
            yield Snapshot(self, folder, base)


@dataclass(frozen=True)
class Snapshot:
    """The build context of an image."""

    image: ProductImage
    folder: Path
    base: str

    @property
    def tag(self) -> str:
        """A tag that what is built decides alone."""
        arguments = (f"{name}={value}" for name, value in self.image.arguments)
        return _digest(self.folder, self.base, *arguments)[:16]

    def build(self, builder: Builder, reference: str) -> None:
        """Build the image."""
        builder.build(
            reference,
            dockerfile=self.folder / self.image.dockerfile,
            context=self.folder,
            arguments={"BASE": self.base, **dict(self.image.arguments)},
        )


_RUNTIME_LOCKS: Final = (
    "requirements/compile.txt",
    "requirements/image-runtime.txt",
    "requirements/toolchain-build.txt",
)
_RUNTIME_SOURCES: Final = (
    "runtime/compile",
    "runtime/enginesmith_contract",
    "runtime/enginesmith_runtime",
    "runtime/toolchain",
)
OPERATOR: Final = ProductImage(
    name="enginesmith/operator",
    dockerfile="operator/Dockerfile",
    sources=("runtime/enginesmith_contract", "operator/enginesmith_operator"),
    locks=("requirements/image-operator.txt",),
)
RUNTIME: Final = ProductImage(
    name="enginesmith/runtime",
    dockerfile="runtime/Dockerfile",
    sources=_RUNTIME_SOURCES,
    locks=_RUNTIME_LOCKS,
)


def with_toolchain(row: ToolchainRow) -> ProductImage:
    """Return the runtime's image with a toolchain."""
    return ProductImage(
        name=f"enginesmith/runtime-{row.name}",
        dockerfile="runtime/Dockerfile",
        sources=_RUNTIME_SOURCES,
        locks=(*_RUNTIME_LOCKS, row.lock),
        arguments=(("TOOLCHAIN", row.name),),
    )


def _digest(folder: Path, *more: str) -> str:
    digest = hashlib.sha256("\0".join(more).encode())
    for path in _files(folder):
        digest.update(f"\0{path.relative_to(folder)}\0{path.stat().st_mode & 0o111}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
