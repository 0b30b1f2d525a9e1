"""Builds images with buildah and pushes them to the cluster's registry."""

import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from development_cluster.commands import run
from development_cluster.files import write_text
from development_cluster.layout import CONTROL, Layout
from development_cluster.nodes import PAUSE_IMAGE

__all__ = ["DATA", "build", "digest_in_registry", "push", "push_pause_image"]

DATA: Final = Path(__file__).parent / "data"
_MANIFESTS: Final = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


def push_pause_image(layout: Layout) -> None:
    """Make the image that every sandbox starts from, once."""
    if digest_in_registry(PAUSE_IMAGE) is None:
        build(layout, PAUSE_IMAGE, dockerfile=DATA / "pause" / "Dockerfile", context=Path("/bin"))
        push(layout, PAUSE_IMAGE)


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


def build(
    layout: Layout, reference: str, *, dockerfile: Path, context: Path, arguments: Mapping[str, str] | None = None
) -> None:
    """Build an image, from cached layers where nothing below them changed.

    Args:
        layout: where the layers and the log are kept.
        reference: registry, name and tag.
        dockerfile: what to build.
        context: the folder that COPY copies from.
        arguments: build arguments.
    """
    authorities = Path("/etc/ssl/certs/ca-certificates.crt")
    run(
        [
            *_buildah(layout),
            *("build", "--layers", "--format=oci", "--tag", reference, "--file", dockerfile),
            *(f"--build-arg={name}={value}" for name, value in (arguments or {}).items()),
            # Whom this machine trusts, the build's downloads trust too.
            *([f"--volume={authorities}:{authorities}:ro"] if authorities.exists() else []),
            context,
        ],
        environment={"BUILDAH_ISOLATION": "chroot", "CONTAINERS_CONF": str(_container_settings(layout))},
        log=layout.logs / "images.log",
    )


def push(layout: Layout, reference: str) -> None:
    """Push an image to the cluster's registry."""
    settings = {"CONTAINERS_CONF": str(_container_settings(layout))}
    run(
        [*_buildah(layout), "push", "--tls-verify=false", reference],
        environment=settings,
        log=layout.logs / "images.log",
    )


def _container_settings(layout: Layout) -> Path:
    """Return settings that keep buildah's lock out of this machine's /etc/cni."""
    path = layout.settings / "containers.conf"
    write_text(path, f'[network]\nnetwork_config_dir = "{layout.data / "buildah-networks"}"\n')
    return path


def _buildah(layout: Layout) -> list[str | Path]:
    storage = layout.cache / "buildah"
    return ["buildah", "--root", storage, "--runroot", layout.folder / "buildah-run", "--storage-driver", "overlay"]
