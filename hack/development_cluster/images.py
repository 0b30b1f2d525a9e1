"""Builds images with buildah and pushes them to the cluster's registry."""

import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from development_cluster.commands import run
from development_cluster.layout import CONTROL, Layout
from development_cluster.nodes import PAUSE_IMAGE

__all__ = ["build_and_push", "has_image", "push_pause_image"]

_DATA: Final = Path(__file__).parent / "data"
_MANIFESTS: Final = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


def push_pause_image(layout: Layout) -> None:
    """Make the image that every sandbox starts from, once."""
    if not has_image(PAUSE_IMAGE):
        build_and_push(layout, PAUSE_IMAGE, dockerfile=_DATA / "pause" / "Dockerfile", context=Path("/bin"))


def has_image(reference: str) -> bool:
    """Return whether the cluster's registry has the image."""
    name, _, tag = reference.removeprefix(f"{CONTROL.registry}/").rpartition(":")
    request = urllib.request.Request(
        f"http://{CONTROL.registry}/v2/{name}/manifests/{tag}", method="HEAD", headers={"Accept": _MANIFESTS}
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10):
            return True
    except urllib.error.HTTPError:
        return False


def build_and_push(
    layout: Layout,
    reference: str,
    *,
    dockerfile: Path,
    context: Path,
    arguments: Mapping[str, str] | None = None,
    ignore: Path | None = None,
) -> None:
    """Build an image, from cached layers where nothing below them changed, and push it.

    Args:
        layout: where the layers and the log are kept.
        reference: registry, name and tag.
        dockerfile: what to build.
        context: the folder that COPY copies from.
        arguments: build arguments.
        ignore: a .dockerignore that is not in the context.
    """
    log = layout.logs / "images.log"
    authorities = Path("/etc/ssl/certs/ca-certificates.crt")
    run(
        [
            *_buildah(layout),
            *("build", "--layers", "--format=oci", "--tag", reference, "--file", dockerfile),
            *(f"--build-arg={name}={value}" for name, value in (arguments or {}).items()),
            *([f"--ignorefile={ignore}"] if ignore else []),
            # Whom this machine trusts, the build's downloads trust too.
            *([f"--volume={authorities}:{authorities}:ro"] if authorities.exists() else []),
            context,
        ],
        environment={"BUILDAH_ISOLATION": "chroot"},
        log=log,
    )
    run([*_buildah(layout), "push", "--tls-verify=false", reference], log=log)


def _buildah(layout: Layout) -> list[str | Path]:
    storage = layout.cache / "buildah"
    return ["buildah", "--root", storage, "--runroot", layout.folder / "buildah-run", "--storage-driver", "overlay"]
