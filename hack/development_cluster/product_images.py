"""The product's images: built from what the checkout holds now, named after it, and pulled by every node beforehand."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from container_images.bases import debian_base, make_debian_base
from container_images.product import OPERATOR, RUNTIME, ProductImage, with_toolchain
from container_images.toolchains import read_toolchains

from development_cluster.errors import ClusterError
from development_cluster.files import write_json
from development_cluster.images import buildah, digest_in_registry
from development_cluster.layout import CONTROL, Layout
from development_cluster.node_specs import NODES, NodeSpec
from development_cluster.nodes import in_node, is_away

__all__ = ["load_images", "load_made_images"]

_ALWAYS: Final = ("tensorrt-rtx",)
"""Toolchains that are small, and that most tests want."""


def load_images(layout: Layout, base: str | None, toolchains: Sequence[str] = ()) -> dict[str, str]:
    """Build and push what changed, and let every node pull it.

    Args:
        layout: of the cluster, which is up.
        base: an image with Python to build on; None: Debian's, made here once.
        toolchains: names of toolchains whose images are wanted too. They are large: only a node with a real GPU pulls
            them beforehand.

    Returns:
        The reference with its digest by the image's name.

    Raises:
        ClusterError: there is no such toolchain.
    """
    rows = read_toolchains()
    if unknown := set(toolchains) - set(rows):
        raise ClusterError(f"no toolchain {', '.join(unknown)}", remedy=f"name some of {', '.join(rows)}")
    base = base or _python_base(layout)
    usual = (OPERATOR, RUNTIME, *(with_toolchain(rows[name]) for name in _ALWAYS))
    references = {image.name: _load(layout, image, base) for image in usual}
    for name in toolchains:
        image = with_toolchain(rows[name])
        references[image.name] = _load(layout, image, rows[name].base or base)
    _pull_all(layout, references)
    return references


def load_made_images(layout: Layout, file: Path) -> dict[str, str]:
    """Let the nodes pull images that the registry has; return the references of the file.

    Raises:
        ClusterError: a node cannot pull one of them.
    """
    references: dict[str, str] = json.loads(file.read_text())
    _pull_all(layout, references)
    return references


def _pull_all(layout: Layout, references: Mapping[str, str]) -> None:
    """Let every node pull what it can run, and note what is loaded."""
    large = {with_toolchain(row).name for name, row in read_toolchains().items() if name not in _ALWAYS}

    def pull(node: NodeSpec) -> None:
        _pull(layout, node, tuple(one for name, one in references.items() if node.real or name not in large))

    with ThreadPoolExecutor(len(NODES)) as nodes:
        list(nodes.map(pull, [node for node in NODES if not is_away(layout, node)]))
    write_json(layout.folder / "images.json", references)


def _load(layout: Layout, image: ProductImage, base: str) -> str:
    with image.snapshot(base) as snapshot:
        name = f"{CONTROL.registry}/{image.name}"
        reference = f"{name}:{snapshot.tag}"
        if digest_in_registry(reference) is None:
            builder = buildah(layout)
            snapshot.build(builder, reference)
            builder.push(reference)
        return f"{name}@{digest_in_registry(reference)}"


def _python_base(layout: Layout) -> str:
    """Make an image with Debian's Python, once."""
    reference = debian_base()
    if digest_in_registry(reference) is None:
        builder = buildah(layout)
        make_debian_base(builder, reference)
        builder.push(reference)
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
