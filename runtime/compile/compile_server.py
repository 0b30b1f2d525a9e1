"""Compiles the server's hot modules with mypyc: extension modules of the same sources, which Python prefers to them.

Usage: compile_server.py SOURCES TARGET    compile; the modules go to the same places below TARGET, which may be SOURCES
       compile_server.py --digest SOURCES  print what changes with the result

SOURCES is the folder with enginesmith_runtime. Compiling takes mypy, setuptools, a C compiler and Python's headers.
Only what a request passes is compiled. Everything else counts as untyped, so that the result does not depend on the
libraries that are installed where it is compiled.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

__all__ = ["compile_server", "digest", "modules"]

_SERVER: Final = Path("enginesmith_runtime/server")
_NAMES: Final = {
    ".": "batching errors instance_pool job pace waiting_queue",
    "protocol": "infer joined_run joining plan_cache request_plan wire",
    "transport": "interface messages pending",
    "transport/http2": "answer_head bounds calls connection control_frames departure faults held_bytes lifetime "
    "message_reader openings output patience request_head service stream wire",
}
"""By folder. Their classes set attributes in `__init__`: mypyc forgets some values that are given in the class."""

_READ: Final = _SERVER / "transport/compiling.py"
"""Is read with them, and not compiled."""

_SETTINGS: Final = """\
[mypy]
follow_imports = skip
ignore_missing_imports = true
[mypy-numpy.*,google.*]
follow_imports = skip
follow_imports_for_stubs = true
"""


def compile_server(sources: Path, target: Path) -> None:
    """Compile the modules; raises CalledProcessError where that fails, after the compiler has said why."""
    names = modules()
    with tempfile.TemporaryDirectory(prefix="enginesmith-compile-") as name:
        folder = Path(name)
        for module in (*names, _READ):
            (folder / module).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(sources / module, folder / module)
            for package in module.parents[:-1]:
                (folder / package / "__init__.py").touch()
        (folder / "mypy.ini").write_text(_SETTINGS)
        # In a process of its own: mypyc and setuptools work in the current folder and change what they import.
        command: list[str | Path] = [sys.executable, Path(__file__).resolve(), "--here", *names]
        # Warnings about generated code are of no use.
        quiet = {**os.environ, "CFLAGS": f"{os.environ.get('CFLAGS', '')} -w"}
        subprocess.run(command, cwd=folder, check=True, env=quiet)
        built = folder / "built"
        for module in built.rglob("*.so"):
            place = target / module.relative_to(built)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(module, place)


def digest(sources: Path) -> str:
    """Return what changes with the result: of the sources, this program, Python, the machine's kind and mypy."""
    where = (sys.version, platform.machine(), platform.libc_ver(), version("mypy"))
    found = hashlib.sha256(repr(where).encode())
    for path in (Path(__file__), *(sources / module for module in (*modules(), _READ))):
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]


def modules() -> list[Path]:
    """Return what is compiled, relative to the sources."""
    return [_SERVER / folder / f"{name}.py" for folder, names in _NAMES.items() for name in names.split()]


def _compile_here(names: list[str]) -> None:
    from mypyc.build import mypycify
    from setuptools import setup

    extensions = mypycify(
        ["--config-file=mypy.ini", *names, str(_READ)],
        only_compile_paths=names,
        opt_level="2",
        debug_level="0",
        multi_file=True,
        group_name="enginesmith",
    )
    arguments = ["--quiet", "build_ext", "--build-lib", "built"]
    setup(name="enginesmith", packages=[], ext_modules=extensions, script_args=arguments)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--here", *names]:
            _compile_here(names)
        case ["--digest", folder]:
            print(digest(Path(folder)))
        case [folder, target]:
            compile_server(Path(folder), Path(target))
        case _:
            sys.exit(__doc__)
