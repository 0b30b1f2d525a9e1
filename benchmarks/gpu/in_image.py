"""Runs a command in the file system of an image that `hack/cluster pack` brought: no cluster or container is needed.

Usage, as root, in a checkout: python3 -m benchmarks.gpu.in_image [--image NAME] [--out DIR] COMMAND [WORD]...

The machine's own Python runs this: it has the standard library alone. The checkout is /opt/checkout there, the packed
models are /opt/models, and --out is /opt/out. The first call unpacks the image's layers, later ones take what is there.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

__all__: list[str] = []

_TEMPORARY: Final = Path(tempfile.gettempdir())
_PACKED: Final = _TEMPORARY / "packed-cluster/machine"
_CACHE: Final = "root/.cache/enginesmith-dev/packed-cache"
_MODELS: Final = "root/.cache/enginesmith-dev/ppocr-v4"
_IMAGE: Final = "enginesmith/runtime-tensorrt-10.6-cu12"
_DRIVER: Final = ("cuda", "nvidia-ml", "nvidia-ptxjitcompiler", "nvidia-nvvm", "nvidia-gpucomp")
_DRIVER_FOLDERS: Final = ("/usr/local/nvidia", "/usr/lib/x86_64-linux-gnu", "/usr/lib64")
_LIBRARIES: Final = "usr/lib/x86_64-linux-gnu"
_ENVIRONMENT: Final = (
    "HOME=/tmp",
    "LANG=C.UTF-8",
    "PATH=/opt/enginesmith/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    "PYTHONPATH=/opt/checkout:/opt/checkout/operator:/opt/checkout/runtime",
    "PYTHONDONTWRITEBYTECODE=1",
    "PYTHONUNBUFFERED=1",
)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default=_IMAGE)
    parser.add_argument("--packed", type=Path, default=_PACKED, help="the unpacked machine of start.sh")
    parser.add_argument("--root", type=Path, default=_TEMPORARY / "image-root")
    parser.add_argument("--out", type=Path, help="folder for results")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args()


def _unpack(packed: Path, image: str, root: Path) -> None:
    """Put the layers of an image on top of each other."""
    if (root / ".unpacked").exists():
        return
    cache = packed / _CACHE
    reference: str = json.loads((cache / "images.json").read_text())[image]
    manifest = _json(_blob(cache, reference.rpartition("@")[2]))
    root.mkdir(parents=True, exist_ok=True)
    for layer in manifest["layers"]:
        subprocess.run(["tar", "x", "-C", root, "-f", _blob(cache, layer["digest"])], check=True)
    _copy_driver(root)
    (root / ".unpacked").touch()


def _blob(cache: Path, digest: str) -> Path:
    kind, _, value = digest.partition(":")
    return cache / "registry/docker/registry/v2/blobs" / kind / value[:2] / value / "data"


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _copy_driver(root: Path) -> None:
    """Copy the driver's libraries to where a package would put them."""
    for folder in filter(Path.is_dir, map(Path, _DRIVER_FOLDERS)):
        for name in _DRIVER:
            for file in sorted(folder.rglob(f"lib{name}.so*")):
                target = root / _LIBRARIES / file.name
                if not target.exists() and not target.is_symlink() and not {"lib32", "i386"} & set(file.parts):
                    shutil.copy2(file, target, follow_symlinks=False)
    smi = shutil.which("nvidia-smi")
    if smi:
        shutil.copy2(smi, root / "usr/bin/nvidia-smi")
    subprocess.run(["chroot", root, "/sbin/ldconfig"], check=True)


def main() -> int:
    """Unpack, mount in a mount namespace that ends with the command, run; returns the command's exit status."""
    arguments = _parse()
    root: Path = arguments.root
    _unpack(arguments.packed, arguments.image, root)
    places = {f"/{name}": root / name for name in ("proc", "sys", "dev")}
    places[str(Path.cwd())] = root / "opt/checkout"
    places[str(arguments.packed / _MODELS)] = root / "opt/models"
    if arguments.out:
        places[str(arguments.out.absolute())] = root / "opt/out"
    for target in places.values():
        target.mkdir(parents=True, exist_ok=True)
    mounts = [shlex.join(("mount", "--rbind", source, str(target))) for source, target in places.items()]
    inside = ["chroot", str(root), "/usr/bin/env", "-i", "-C", "/opt/checkout", *_ENVIRONMENT, *arguments.command]
    script = " && ".join([*mounts, f"exec {shlex.join(inside)}"])
    return subprocess.run(["unshare", "--mount", "--propagation=private", "sh", "-c", script], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
