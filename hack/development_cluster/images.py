"""Builds images with buildah and pushes them to the cluster's registry."""

import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from container_images.builders import Builder

from development_cluster.files import write_text
from development_cluster.layout import CONTROL, Layout
from development_cluster.nodes import PAUSE_IMAGE
from development_cluster.programs import IMAGE_PACKAGES, require_packages

__all__ = ["DATA", "buildah", "digest_in_registry", "push_pause_image"]

DATA: Final = Path(__file__).parent / "data"
_MANIFESTS: Final = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


def push_pause_image(layout: Layout) -> None:
    """Make the image that every sandbox starts from, once."""
    if digest_in_registry(PAUSE_IMAGE) is None:
        builder = buildah(layout)
        builder.build(PAUSE_IMAGE, dockerfile=DATA / "pause" / "Dockerfile", context=Path("/bin"), arguments={})
        builder.push(PAUSE_IMAGE)


def digest_in_registry(reference: str) -> str | None:
    """Return the digest under which the cluster's registry has the image, or None."""
    name, _, tag = reference.removeprefix(f"{CONTROL.registry}/").rpartition(":")
    request = urllib.request.Request(
        f"http://{CONTROL.registry}/v2/{name}/manifests/{tag}", method="HEAD", headers={"Accept": _MANIFESTS}
    )
    try:
        # A proxy of the environment knows nothing of this machine's bridges.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return str(answer.headers["Docker-Content-Digest"])
    except urllib.error.HTTPError:
        return None


def buildah(layout: Layout, *, log: Path | None = None, plain_http: bool = True) -> Builder:
    """Return buildah with images and layers of its own below the cluster's cache.

    Args:
        layout: where the layers are kept.
        log: takes what it says; None: a log of the cluster's.
        plain_http: whether registries are asked without TLS, as the cluster's wants it.
    """
    require_packages(layout, IMAGE_PACKAGES)
    settings = layout.settings / "containers.conf"
    # Keeps buildah's lock out of this machine's /etc/cni.
    write_text(settings, f'[network]\nnetwork_config_dir = "{layout.data / "buildah-networks"}"\n')
    storage = ("--root", layout.cache / "buildah", "--runroot", layout.folder / "buildah-run")
    return Builder(
        program="buildah",
        options=(*storage, "--storage-driver", "overlay"),
        environment={"BUILDAH_ISOLATION": "chroot", "CONTAINERS_CONF": str(settings)},
        log=log or layout.logs / "images.log",
        plain_http=plain_http,
    )
