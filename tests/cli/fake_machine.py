"""A machine with a GPU and chosen packages, for processes of the command line: a folder for PYTHONPATH.

It has a module `pynvml` (see `engines/fake_nvml`), a `libcuda.so.1` whose cuInit answers a number, and the metadata of
packages that are not installed, with modules that can be imported or not.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.engines import fake_nvml

_NVML = "from fake_nvml import fake_nvml\nglobals().update(vars(fake_nvml({name!r}, **{options!r})))\n"
_CUDA = "int cuInit(unsigned flags) {{ return {code}; }}\n"


class FakeMachine:
    """The folder, which is on PYTHONPATH and LD_LIBRARY_PATH for the rest of the test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        monkeypatch.setenv("PYTHONPATH", str(folder))
        monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))

    def add_gpu(self, name: str = "NVIDIA H200", *, cuda_says: int = 0, **options: Any) -> None:
        """Add the GPUs of `fake_nvml`, and a driver whose cuInit answers `cuda_says`."""
        shutil.copy(fake_nvml.__file__, self.folder)
        options = {"memory_bytes": 141 << 30, "capability": (9, 0), **options}
        (self.folder / "pynvml.py").write_text(_NVML.format(name=name, options=options))
        source = self.folder / "cuda.c"
        source.write_text(_CUDA.format(code=cuda_says))
        library = self.folder / "libcuda.so.1"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)

    def install(self, package: str, version: str) -> None:
        """Add a package's metadata."""
        folder = self.folder / f"{package.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")

    def install_tensorrt(self, cuda: str, version: str, *, fails: str = "") -> None:
        """Add TensorRT, which loads, or says `fails`."""
        for suffix in ("", "-libs", "-bindings"):
            self.install(f"tensorrt-cu{cuda}{suffix}", version)
        text = f"raise ImportError({fails!r})\n" if fails else ""
        (self.folder / "tensorrt.py").write_text(text)


@pytest.fixture
def fake_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """A machine to put together: `add_gpu`, `install`."""
    return FakeMachine(tmp_path / "fake_machine", monkeypatch)
