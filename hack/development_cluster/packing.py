"""Packs the cluster for a machine without a network: Debian, the programs, the models and the images, in pieces.

What is packed was built here. Each part is compressed once and kept in the cache under the hash of what it holds: after
a change of the product, only the layers that changed are packed again.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from development_cluster.commands import run
from development_cluster.errors import ClusterError
from development_cluster.gpus import build_plugin
from development_cluster.images import DATA
from development_cluster.layout import ROOT, Layout
from development_cluster.packed_images import pack_images
from development_cluster.programs import packed_tools, require_packages

__all__ = ["pack"]

# Debian 13: its containerd (1.7) can hand out devices by CDI.
_SUITE: Final = "trixie"
_PYTHON: Final = "3.13"
_PACKAGES: Final = (
    "ca-certificates", "conntrack", "containerd", "containernetworking-plugins", "iproute2", "iptables", "nftables",
    "openssl", "procps", "python3", "runc",
)  # fmt: skip
# What `python -m benchmarks.gpu_cluster` imports, at the versions of the checkout's lock.
_PYTHON_PACKAGES: Final = (
    "grpcio", "numpy", "onnxruntime", "pillow", "protobuf", "pyclipper", "pydantic", "pytest", "pyyaml", "s3fs",
)  # fmt: skip
_LEFT_OUT: Final = ("doc", "man", "locale", "info")
_COMPRESS: Final = ("zstd", "-q", "-10", "-T0", "--long=27")
_PACK_PACKAGES: Final = {"mmdebstrap": "mmdebstrap", "zstd": "zstd"}


def pack(
    layout: Layout, folder: Path, *, piece_mib: int, images: Path | None = None, left_out: Sequence[str] = ()
) -> list[str]:
    """Write the pieces, each in a folder of its own, and the scripts that put them together.

    Args:
        layout: of the cluster, which is up and has the product's images.
        folder: gets `c00`, `c01`, ... and `start`; what it holds of an earlier call is replaced.
        piece_mib: size of a piece in MiB.
        images: references with digests by name, in JSON, of the cluster's registry; None: those of the last `load`.
        left_out: names of images that are not needed there.

    Returns:
        The names of the folders, in the order in which they are needed.

    Raises:
        ClusterError: no images are loaded, or a step failed.
    """
    images = images or layout.folder / "images.json"
    if not images.exists():
        raise ClusterError("no images are loaded", remedy="hack/cluster load")
    require_packages(layout, _PACK_PACKAGES)
    cache = layout.cache / "packed"
    cache.mkdir(parents=True, exist_ok=True)
    references = {name: one for name, one in json.loads(images.read_text()).items() if name not in left_out}
    parts = [_pack_machine(layout, cache), *pack_images(layout, references, cache)]
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("c[0-9][0-9]"), folder / "start"):
        shutil.rmtree(old, ignore_errors=True)
    names = _split(parts, folder, piece_mib)
    _copy_scripts(folder / "start")
    return ["start", *names]


def _pack_machine(layout: Layout, cache: Path) -> Path:
    """Pack a root file system with Python packages, programs and models."""
    tools = [path.parent for path in (*packed_tools(), build_plugin())]
    models = Path(run([ROOT / "hack" / "fetch-models"]).strip())
    lock = _locked()
    made_of = [_SUITE, *_PACKAGES, *lock, *(tool.name for tool in tools), *_COMPRESS]
    packed = cache / f"machine-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}.tar.zst"
    if packed.exists():
        return packed
    debian = _debian(layout, cache)
    with TemporaryDirectory(prefix="packed-", dir=cache) as name:
        extra = Path(name)
        _install_python(layout, extra / "opt" / "python", lock)
        programs = extra / "root" / ".cache" / "enginesmith-dev"
        for tool in tools:
            shutil.copytree(tool, programs / "tools" / tool.name, ignore=shutil.ignore_patterns(".lock"))
        shutil.copytree(models, programs / models.name)
        _compress_folders((debian, extra), packed)
    return packed


def _debian(layout: Layout, cache: Path) -> Path:
    digest = hashlib.sha256(repr((_SUITE, _PACKAGES, _LEFT_OUT)).encode()).hexdigest()[:16]
    debian = cache / f"debian-{digest}"
    if not debian.exists():
        part = debian.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        run(
            [
                *("mmdebstrap", "--quiet", "--variant=minbase", "--format=directory"),
                f"--include={','.join(_PACKAGES)}",
                *('--aptopt=Apt::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"'),
                *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _LEFT_OUT),
                *(_SUITE, part),
            ],
            log=layout.logs / "pack.log",
        )
        part.rename(debian)
    return debian


def _locked() -> list[str]:
    """Return the packages that the clients need, and everything that they need, as the lock has them."""
    lines = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.removesuffix("\\").strip() for line in lines if line[:1].isalnum() and "==" in line]
    return [pin for pin in pins if "python_full_version <" not in pin]


def _install_python(layout: Layout, target: Path, lock: list[str]) -> None:
    with TemporaryDirectory(prefix="constraints-") as name:
        constraints = Path(name) / "constraints.txt"
        constraints.write_text("".join(f"{pin}\n" for pin in lock))
        platforms = [f"--platform=manylinux_{glibc}_x86_64" for glibc in ("2_34", "2_28", "2_27", "2_17")]
        run(
            [
                *(ROOT / ".tools" / "uv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile"),
                *("--only-binary=:all:", f"--python-version={_PYTHON}", "--implementation=cp"),
                *(*platforms, "--platform=manylinux2014_x86_64", f"--target={target}"),
                *("--constraint", constraints, *_PYTHON_PACKAGES),
            ],
            log=layout.logs / "pack.log",
        )


def _compress_folders(folders: Iterable[Path], target: Path) -> None:
    """Write one compressed archive of the contents of folders, owned by root."""
    part = target.with_suffix(".part")
    left_out = ("./proc/*", "./sys/*", "./dev/*", "./var/cache/*", "./var/lib/apt/lists/*")
    places = [word for folder in folders for word in ("-C", folder, ".")]
    _pipe(
        ["tar", "c", "--numeric-owner", *(f"--exclude={name}" for name in left_out), *places],
        [*_COMPRESS, "-f", "-o", part],
    )
    part.rename(target)


def _split(parts: list[Path], folder: Path, mib: int) -> list[str]:
    """Write one archive of the parts in pieces, `c00/piece-00` and so on; return the folders' names."""
    _pipe(
        ["tar", "c", "-C", parts[0].parent, *(part.name for part in parts)],
        ["split", f"--bytes={mib}M", "--numeric-suffixes", "--suffix-length=2", "-", folder / "piece-"],
    )
    names = []
    for piece in sorted(folder.glob("piece-[0-9][0-9]")):
        names.append(piece.name.replace("piece-", "c"))
        (folder / names[-1]).mkdir()
        piece.rename(folder / names[-1] / piece.name)
    return names


def _pipe(first: Sequence[str | Path], second: Sequence[str | Path]) -> None:
    with subprocess.Popen(first, stdout=subprocess.PIPE) as source:
        taken = subprocess.run(second, stdin=source.stdout, check=False)
    if source.returncode or taken.returncode:
        raise ClusterError(f"{first[0]} or {second[0]} failed: is the disk full?")


def _copy_scripts(target: Path) -> None:
    """Copy the scripts, and zstd with its libraries, which the other machine may lack."""
    shutil.copytree(DATA / "packed", target)
    zstd = Path(shutil.which("zstd") or "/usr/bin/zstd")
    wanted = ("libzstd", "liblzma", "liblz4", "libz.")
    libraries = [word for word in run(["ldd", zstd]).split() if word.startswith("/") and any(w in word for w in wanted)]
    (target / "zstd").mkdir()
    for file in (zstd, *map(Path, libraries)):
        shutil.copy(file, target / "zstd" / file.name)
