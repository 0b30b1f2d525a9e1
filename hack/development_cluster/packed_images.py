"""Packs the registry's images as its own files. Layers are not compressed in them: they are pulled faster so."""

import gzip
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final, cast

from development_cluster.errors import ClusterError
from development_cluster.images import digest_in_registry
from development_cluster.layout import CONTROL, Layout
from development_cluster.nodes import PAUSE_IMAGE

__all__ = ["pack_images"]

_STORAGE: Final = Path("docker/registry/v2")
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_LEVEL: Final = 6
_CHUNK: Final = 1 << 22


@dataclass
class _Packed:
    """What the packed registry holds: small files by path, and layers by digest."""

    files: dict[str, bytes] = field(default_factory=dict)
    layers: set[str] = field(default_factory=set)


def pack_images(layout: Layout, references: Mapping[str, str], cache: Path) -> list[Path]:
    """Pack the pause image and those that are named.

    Args:
        layout: of the cluster, whose registry has them.
        references: with their digests, by name.
        cache: keeps each compressed layer.

    Returns:
        Files: one for each layer, `sha256-DIGEST.zst`, and `registry.tar` with everything else and `images.json`.
    """
    packed = _Packed()
    made = {name: _pack_image(layout, reference, packed, cache) for name, reference in references.items()}
    pause = f"{PAUSE_IMAGE.rpartition(':')[0]}@{digest_in_registry(PAUSE_IMAGE)}"
    _tag(packed, PAUSE_IMAGE, _pack_image(layout, pause, packed, cache).rpartition("@")[2])
    packed.files["images.json"] = json.dumps(made, indent=2).encode()
    rest = cache / "registry.tar"
    with tarfile.open(rest, "w") as archive:
        for name, content in sorted(packed.files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    return [*(_compressed(cache, digest) for digest in sorted(packed.layers)), rest]


def _pack_image(layout: Layout, reference: str, packed: _Packed, cache: Path) -> str:
    """Add an image; return its reference, whose digest is another one since the layers are not compressed."""
    name, _, digest = reference.removeprefix(f"{CONTROL.registry}/").partition("@")
    manifest: dict[str, Any] = json.loads(_blob(layout, digest).read_bytes())
    config = _blob(layout, manifest["config"]["digest"]).read_bytes()
    for layer, plain in zip(manifest["layers"], json.loads(config)["rootfs"]["diff_ids"], strict=True):
        layer["size"] = _pack_layer(layout, layer, plain, cache)
        layer |= {"digest": plain, "mediaType": _LAYER}
        packed.layers.add(plain)
        _link(packed, f"{name}/_layers", plain)
    _add_blob(packed, config)
    _link(packed, f"{name}/_layers", manifest["config"]["digest"])
    new = _add_blob(packed, json.dumps(manifest).encode())
    _link(packed, f"{name}/_manifests/revisions", new)
    return f"{CONTROL.registry}/{name}@{new}"


def _pack_layer(layout: Layout, layer: dict[str, Any], plain: str, cache: Path) -> int:
    """Compress the uncompressed layer into the cache, unless it is there; return its size in bytes."""
    target = _compressed(cache, plain)
    size = target.with_suffix(".size")
    if not size.exists():
        source = _blob(layout, layer["digest"])
        part = target.with_suffix(".part")
        command: list[str | Path] = ["zstd", "-q", f"-{_LEVEL}", "-T0", "--long=27", "-f", "-o", part]
        plain_hash = hashlib.sha256()
        written = 0
        with subprocess.Popen(command, stdin=subprocess.PIPE) as compressor:
            pipe = cast("IO[bytes]", compressor.stdin)
            with gzip.open(source) if "gzip" in layer["mediaType"] else source.open("rb") as file, pipe:
                while data := file.read(_CHUNK):
                    plain_hash.update(data)
                    written += pipe.write(data)
        if compressor.returncode or f"sha256:{plain_hash.hexdigest()}" != plain:
            raise ClusterError(f"layer {layer['digest']} of the registry is not what its image says")
        part.rename(target)
        size.write_text(str(written))
    return int(size.read_text())


def _compressed(cache: Path, digest: str) -> Path:
    return cache / f"{digest.replace(':', '-')}.zst"


def _blob(layout: Layout, digest: str) -> Path:
    return layout.cache / "registry" / _blob_path(digest)


def _blob_path(digest: str) -> Path:
    kind, _, value = digest.partition(":")
    return _STORAGE / "blobs" / kind / value[:2] / value / "data"


def _add_blob(packed: _Packed, content: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    packed.files[f"registry/{_blob_path(digest)}"] = content
    return digest


def _link(packed: _Packed, place: str, digest: str) -> None:
    path = _STORAGE / "repositories" / place / digest.replace(":", "/") / "link"
    packed.files[f"registry/{path}"] = digest.encode()


def _tag(packed: _Packed, reference: str, digest: str) -> None:
    name, _, tag = reference.removeprefix(f"{CONTROL.registry}/").rpartition(":")
    tags = f"{name}/_manifests/tags/{tag}"
    packed.files[f"registry/{_STORAGE / 'repositories' / tags / 'current' / 'link'}"] = digest.encode()
    _link(packed, f"{tags}/index", digest)
