"""Adds a toolchain to the runtime's image. Runs in runtime/Dockerfile, with nothing but Python's own library.

Usage: assemble.py packages TOOLCHAIN ROOT CACHE     the Python packages; pycuda needs a C++ compiler, from apt-get
       assemble.py libraries TOOLCHAIN ROOT CACHE    the shared libraries, and where the loader finds them

TOOLCHAIN is a table of toolchains.toml, or empty: then nothing is added. ROOT is what becomes the image's root.
"""

import ctypes
import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import urllib.request
import zipfile
from pathlib import Path
from typing import Any, Final

__all__ = ["main"]

_HERE: Final = Path(__file__).parent
_LIBRARIES: Final = Path("opt/tensorrt/lib")
_BUILD: Final = Path("/tmp/toolchain-build")  # noqa: S108 - of a build stage, which is thrown away
# Of the driver's API; the wheel with the other headers does not have it.
_PROFILER_HEADER: Final = """\
#pragma once
#include <cuda.h>
typedef enum { CU_OUT_KEY_VALUE_PAIR, CU_OUT_CSV } CUoutput_mode;
extern "C" CUresult cuProfilerInitialize(const char *, const char *, CUoutput_mode);
extern "C" CUresult cuProfilerStart(void);
extern "C" CUresult cuProfilerStop(void);
"""


def main(part: str, name: str, root: Path, cache: Path) -> None:
    """Add one part of one toolchain."""
    root.mkdir(parents=True, exist_ok=True)
    if not name:
        return
    rows = tomllib.loads((_HERE / "toolchains.toml").read_text())
    if name not in rows:
        sys.exit(f"TOOLCHAIN={name}: not one of {', '.join(rows)}")
    row = rows[name]
    if part == "packages":
        _install_packages(row["packages"], _HERE / "locks", _HERE / f"locks/toolchain-{name}.txt", root, cache)
        return
    if libraries := row.get("libraries"):
        _unpack(_download(libraries["url"], libraries["sha256"], cache), libraries, root / _LIBRARIES)
        settings = root / "etc/ld.so.conf.d/enginesmith-toolchain.conf"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(f"/{_LIBRARIES}\n")
    if row["backend"] == "tensorrt":
        _check_version(name, row["version"], root / _LIBRARIES)


def _install_packages(packages: list[str], locks: Path, lock: Path, root: Path, cache: Path) -> None:
    """Install the locked packages where the runtime's environment looks for them."""
    subprocess.run([sys.executable, "-m", "venv", _BUILD], check=True)
    pip: list[str | Path] = [_BUILD / "bin/pip", "install", "--quiet", "--require-hashes", "--no-deps"]
    # pycuda takes its minute once: pip keeps what it built.
    variables = {**os.environ, "PIP_CACHE_DIR": str(cache / "pip")}
    subprocess.run([*pip, "--requirement", locks / "toolchain-build.txt"], check=True, env=variables)
    if any(package.startswith("pycuda") for package in packages):
        variables["HOME"] = str(_configure_pycuda())
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    target = root / "opt/enginesmith/lib" / version / "site-packages"
    subprocess.run([*pip, "--no-build-isolation", "--target", target, "--requirement", lock], check=True, env=variables)
    shutil.rmtree(target / "bin", ignore_errors=True)


def _configure_pycuda() -> Path:
    """Prepare a build without CUDA: headers of a wheel, and a library of the driver's name to link to.

    Returns:
        The home folder whose settings pycuda's build reads.
    """
    _ensure_compiler()
    home = _BUILD / "pycuda"
    stubs = home / "stubs"
    stubs.mkdir(parents=True)
    (stubs / "cudaProfiler.h").write_text(_PROFILER_HEADER)
    (stubs / "empty.c").write_text("")
    stub: list[str | Path] = ["-o", stubs / "libcuda.so", "-Wl,-soname,libcuda.so.1", stubs / "empty.c"]
    subprocess.run(["gcc", "-shared", *stub], check=True)
    (headers,) = _BUILD.glob("lib/python*/site-packages/nvidia/cuda_runtime/include")
    (home / ".aksetup-defaults.py").write_text(
        f"CUDA_INC_DIR = {[str(headers), str(stubs)]!r}\n"
        f"CUDADRV_LIB_DIR = {[str(stubs)]!r}\n"
        "CUDA_ENABLE_CURAND = False\n"
        "CXXFLAGS = ['-g0']\n"
        # Linked by its path and kept in spite of having no symbol: the import would else find none at run time.
        f"LDFLAGS = ['-Wl,--no-as-needed', {str(stubs / 'libcuda.so')!r}]\n"
    )
    return home


def _ensure_compiler() -> None:
    missing = [] if shutil.which("g++") else ["g++"]
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append("python3-dev")
    if missing:
        apt = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=apt)
        install = ["apt-get", "install", "-qq", "--yes", "--no-install-recommends", *missing]
        subprocess.run(install, check=True, env=apt, stdout=subprocess.DEVNULL)


def _download(url: str, sha256: str, cache: Path) -> Path:
    """Return the archive, from the cache where it is there; a digest that differs ends the program."""
    archive = cache / sha256
    if not archive.exists():
        part = cache / f"{sha256}.part"
        digest = hashlib.sha256()
        print(f"downloading {url}", file=sys.stderr, flush=True)
        with urllib.request.urlopen(url, timeout=60) as answer, part.open("wb") as file:  # noqa: S310 - of our table
            while block := answer.read(1 << 22):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != sha256:
            part.unlink()
            sys.exit(f"{url}: expected the SHA-256 digest {sha256}, found {digest.hexdigest()}")
        part.rename(archive)
    return archive


def _unpack(archive: Path, libraries: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            wanted = fnmatch.fnmatchcase(member.filename, libraries["members"])
            if wanted and not fnmatch.fnmatchcase(member.filename, libraries.get("without", "")):
                target = folder / Path(member.filename).name
                with opened.open(member) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 22)
                target.chmod(0o755)


def _check_version(name: str, version: str, folder: Path) -> None:
    """End the program unless the library says the version of the table; it loads without a driver."""
    soname = f"libnvinfer.so.{version.split('.', maxsplit=1)[0]}"
    try:
        number = ctypes.CDLL(str(folder / soname) if folder.exists() else soname).getInferLibVersion()
    except OSError as error:
        sys.exit(
            f"TOOLCHAIN={name}: the image has no {soname} that loads ({error}); give the `base` of the table as BASE"
        )
    found = f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    if found.split(".") != version.split(".")[:3]:
        sys.exit(f"TOOLCHAIN={name}: expected TensorRT {version}, but {soname} says {found}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
