"""The product's images: built from what the checkout holds now, named after it, and pulled by every node beforehand."""

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from development_cluster.commands import run
from development_cluster.files import write_json
from development_cluster.images import DATA, build, digest_in_registry, push
from development_cluster.layout import CONTROL, ROOT, Layout
from development_cluster.node_specs import NODES, NodeSpec
from development_cluster.nodes import in_node, is_away

__all__ = ["PRODUCT_IMAGES", "ProductImage", "load_images"]

_DEBIAN: Final = "bookworm"


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


_RUNTIME_LOCKS: Final = ("requirements/image-runtime.txt", "requirements/image-runtime-tensorrt-rtx.txt")
_RUNTIME_SOURCES: Final = ("runtime/enginesmith_contract", "runtime/enginesmith_runtime")
PRODUCT_IMAGES: Final = (
    ProductImage(
        name="enginesmith/operator",
        dockerfile="operator/Dockerfile",
        sources=("runtime/enginesmith_contract", "operator/enginesmith_operator"),
        locks=("requirements/image-operator.txt",),
    ),
    ProductImage(
        name="enginesmith/runtime",
        dockerfile="runtime/Dockerfile",
        sources=_RUNTIME_SOURCES,
        locks=_RUNTIME_LOCKS,
    ),
    ProductImage(
        name="enginesmith/runtime-tensorrt-rtx",
        dockerfile="runtime/Dockerfile",
        sources=_RUNTIME_SOURCES,
        locks=_RUNTIME_LOCKS,
        arguments=(("TOOLCHAIN", "tensorrt-rtx"),),
    ),
)


def load_images(layout: Layout, base: str | None) -> dict[str, str]:
    """Build and push what changed, and let every node pull it.

    Args:
        layout: of the cluster, which is up.
        base: an image with Python to build on; None: Debian's, made here once.

    Returns:
        The reference with its digest by the image's name.
    """
    base = base or _python_base(layout)
    references = {image.name: _load(layout, image, base) for image in PRODUCT_IMAGES}
    with ThreadPoolExecutor(len(NODES)) as nodes:
        present = [node for node in NODES if not is_away(layout, node)]
        list(nodes.map(lambda node: _pull(layout, node, tuple(references.values())), present))
    write_json(layout.folder / "images.json", references)
    return references


def _load(layout: Layout, image: ProductImage, base: str) -> str:
    with TemporaryDirectory(prefix="enginesmith-image-") as folder:
        # Others may write to the checkout meanwhile: what is hashed is what is built.
        context = _snapshot(image, Path(folder))
        tag = _digest(context, base, *(f"{name}={value}" for name, value in image.arguments))[:16]
        name = f"{CONTROL.registry}/{image.name}"
        reference = f"{name}:{tag}"
        if digest_in_registry(reference) is None:
            arguments = {"BASE": base, **dict(image.arguments)}
            build(layout, reference, dockerfile=context / image.dockerfile, context=context, arguments=arguments)
            push(layout, reference)
        return f"{name}@{digest_in_registry(reference)}"


def _snapshot(image: ProductImage, folder: Path) -> Path:
    for path in (image.dockerfile, *image.locks, ".dockerignore"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    for path in image.sources:
        shutil.copytree(ROOT / path, folder / path, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _digest(folder: Path, *more: str) -> str:
    digest = hashlib.sha256("\0".join(more).encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"\0{path.relative_to(folder)}\0{path.stat().st_mode & 0o111}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _python_base(layout: Layout) -> str:
    """Make an image with Debian's Python, once."""
    dockerfile = DATA / "python" / "Dockerfile"
    script = DATA / "python" / "make-base.sh"
    digest = hashlib.sha256(dockerfile.read_bytes() + script.read_bytes() + _DEBIAN.encode()).hexdigest()[:16]
    reference = f"{CONTROL.registry}/python:{digest}"
    if digest_in_registry(reference) is None:
        with TemporaryDirectory(prefix="enginesmith-base-") as folder:
            run([script, _DEBIAN, Path(folder) / "base.tar"], log=layout.logs / "images.log")
            build(layout, reference, dockerfile=dockerfile, context=Path(folder))
            push(layout, reference)
    return reference


def _pull(layout: Layout, node: NodeSpec, references: tuple[str, ...]) -> None:
    known = in_node(layout, node, "ctr", "--namespace=k8s.io", "images", "list", "--quiet").split()
    for reference in references:
        if reference not in known:
            in_node(
                layout, node,
                "ctr", "--namespace=k8s.io", "images", "pull", "--hosts-dir=/etc/containerd/certs.d",
                "--label=io.cri-containerd.image=managed", reference,
            )  # fmt: skip
