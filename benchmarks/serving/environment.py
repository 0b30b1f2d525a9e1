"""What has to be installed or compiled first, in a cache outside the checkout; each thing once for each version."""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime

__all__ = [
    "NotAvailableError",
    "build_cpp",
    "build_native",
    "cache",
    "compiled_runtime",
    "onnxruntime_library",
    "python_of",
    "run",
]

_HERE = Path(__file__).resolve().parent
_DEBIAN = ("libgrpc++-dev", "libgrpc-dev", "libprotobuf-dev", "protobuf-compiler", "protobuf-compiler-grpc")


class NotAvailableError(Exception):
    """A peer cannot be had on this machine; the text says why."""


def cache() -> Path:
    """Return the folder that everything goes to."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "enginesmith-dev" / "serving"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run(command: Sequence[str | Path], **more: str) -> str:
    """Run a step and return what it prints.

    Raises:
        NotAvailableError: the program is missing or fails; the last line that it wrote is in the text.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **more})
    except FileNotFoundError:
        raise NotAvailableError(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines() or [f"exit status {error.returncode}"]
        raise NotAvailableError(f"{Path(command[0]).name}: {lines[-1]}") from None
    return done.stdout


def onnxruntime_library() -> Path:
    """Return ONNX Runtime's own library, the one file that every server here runs."""
    return next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))


@functools.cache
def compiled_runtime() -> Path:
    """Return the runtime of this checkout with its hot modules compiled, as images have it: a folder for PYTHONPATH."""
    return Path(run([_HERE.parent.parent / "hack" / "compiled"]).splitlines()[-1])


@functools.cache
def build_native() -> Path:
    """Return the folder with the Rust programs `load` and `ceiling`."""
    source = _HERE / "native"
    files = [source / "Cargo.toml", source / "Cargo.lock", *sorted((source / "src").rglob("*.rs"))]

    def make(folder: Path) -> None:
        target = cache() / "cargo-target"
        run(
            ["cargo", "build", "--release", "--locked", "--manifest-path", source / "Cargo.toml"],
            CARGO_TARGET_DIR=str(target),
        )
        for name in ("load", "ceiling"):
            shutil.copy2(target / "release" / name, folder / name)

    return _once("native", [path.read_bytes() for path in files], make)


@functools.cache
def build_cpp() -> Path:
    """Return the C++ server; its libraries are Debian's, unpacked into the cache where they are not installed."""
    source = _HERE / "peers" / "cpp_server.cc"
    script = _HERE / "peers" / "build_cpp.sh"
    protos = _HERE.parent.parent / "runtime"

    def make(folder: Path) -> None:
        run(["bash", script, source, folder, protos, _debian_root(folder)])

    files = [source, script, *sorted((protos / "enginesmith_contract" / "protos").glob("*.proto"))]
    return _once("cpp", [path.read_bytes() for path in files], make) / "cpp_server"


def python_of(name: str, packages: Sequence[str]) -> Path:
    """Return the interpreter of an environment with these packages and the ONNX Runtime that this process has."""
    wanted = [*packages, f"onnxruntime=={onnxruntime.__version__}"]

    def make(folder: Path) -> None:
        run([sys.executable, "-m", "venv", folder / "venv"])
        run([folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", *wanted])

    return _once(name, [sysconfig.get_python_version().encode(), *map(str.encode, wanted)], make) / "venv/bin/python"


def _once(name: str, parts: Sequence[bytes], make: Callable[[Path], None]) -> Path:
    """Return the folder that `make` filled for these inputs."""
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    folder = cache() / f"{name}-{digest}"
    if not (folder / "complete").exists():
        print(f"preparing {name} in {folder}", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        make(folder)
        (folder / "complete").touch()
    return folder


def _debian_root(folder: Path) -> Path:
    if Path("/usr/include/grpcpp/grpcpp.h").exists() and shutil.which("grpc_cpp_plugin"):
        return Path("/")
    listed = run(
        [
            "apt-cache",
            "depends",
            "--recurse",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
            "--no-replaces",
            "--no-enhances",
            *_DEBIAN,
        ]
    )
    names = {line for line in listed.splitlines() if line and not line.startswith((" ", "<"))}
    have = set(run(["dpkg-query", "--show", "--showformat", "${Package}\\n"]).split())
    work = folder / "packages"
    work.mkdir()
    missing = sorted(name for name in names if name.split(":")[0] not in have)
    subprocess.run(["apt-get", "download", "--quiet", *missing], cwd=work, check=True, capture_output=True)
    for package in work.glob("*.deb"):
        run(["dpkg", "--extract", package, folder / "root"])
    shutil.rmtree(work)
    return folder / "root"
