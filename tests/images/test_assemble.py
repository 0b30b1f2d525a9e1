"""What a stage of runtime/Dockerfile makes of a toolchain's table: the libraries of its archive, checked twice."""

import hashlib
import http.server
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typing_extensions import override

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "runtime/toolchain/assemble.py"


class Assembly:
    """A copy of the program with a table of the test's own, and an archive on a server of this machine."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        (folder / "cache").mkdir()
        (folder / "assemble.py").write_bytes(PROGRAM.read_bytes())
        self.archive = folder / "redist.jar"
        self._url = f"{address}/{self.archive.name}"

    def write_archive(self, number: int) -> str:
        """Make an archive whose library says this version number; return its digest."""
        source, library = self.folder / "fake_nvinfer.c", self.folder / "libnvinfer.so.10"
        source.write_text(f"int getInferLibVersion(void) {{ return {number}; }}\n")
        subprocess.run(["gcc", "-shared", "-o", library, source], check=True)
        with zipfile.ZipFile(self.archive, "w") as archive:
            archive.write(library, "org/example/linux-x86_64/libnvinfer.so.10")
            archive.writestr("org/example/linux-x86_64/libnvinfer_vc_plugin.so.10", b"unused")
            archive.writestr("org/example/linux-x86_64/libjninvinfer.so", b"of Java")
            archive.writestr("META-INF/MANIFEST.MF", b"")
        return hashlib.sha256(self.archive.read_bytes()).hexdigest()

    def run(self, name: str, sha256: str, part: str = "libraries") -> subprocess.CompletedProcess[str]:
        """Assemble a part of a toolchain."""
        (self.folder / "toolchains.toml").write_text(
            '[trt]\nbackend = "tensorrt"\nversion = "10.6.0"\ncuda = "12.6"\npackages = []\n'
            f'[trt.libraries]\nurl = "{self._url}"\nsha256 = "{sha256}"\n'
            'members = "*/libnv*.so*"\nwithout = "*_vc_plugin*"\n'
        )
        places = [self.folder / place for place in ("tree", "cache")]
        return subprocess.run(
            [sys.executable, "-B", self.folder / "assemble.py", part, name, *places],
            capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def assembly(tmp_path: Path) -> Iterator[Assembly]:
    """An assembly whose archive is served from the test's folder."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object, **named: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path), **named)  # type: ignore[arg-type]

        @override
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Assembly(tmp_path, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


@pytest.mark.slow
def test_the_libraries_of_the_archive_are_laid_out_where_the_loader_is_told_to_look(assembly: Assembly) -> None:
    digest = assembly.write_archive(100600)
    run = assembly.run("trt", digest)
    assert run.returncode == 0, run.stderr
    tree = assembly.folder / "tree"
    found = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    assert found == {
        "opt/tensorrt/lib/libnvinfer.so.10",
        "etc/ld.so.conf.d/enginesmith-toolchain.conf",
    }
    assert (tree / "etc/ld.so.conf.d/enginesmith-toolchain.conf").read_text() == "/opt/tensorrt/lib\n"
    assembly.archive.unlink()
    (assembly.folder / "tree").rename(assembly.folder / "first")

    again = assembly.run("trt", digest)

    assert again.returncode == 0, f"the cache has the archive: {again.stderr}"


@pytest.mark.slow
def test_another_archive_at_the_address_is_refused_with_both_digests(assembly: Assembly) -> None:
    digest = assembly.write_archive(100600)
    run = assembly.run("trt", "0" * 64)
    assert run.returncode != 0
    assert f"expected the SHA-256 digest {'0' * 64}, found {digest}" in run.stderr
    assert list((assembly.folder / "cache").iterdir()) == []


@pytest.mark.slow
def test_libraries_of_another_version_than_the_table_says_are_refused_with_both(assembly: Assembly) -> None:
    run = assembly.run("trt", assembly.write_archive(101303))
    assert run.returncode != 0
    assert "expected TensorRT 10.6.0, but libnvinfer.so.10 says 10.13.3" in run.stderr


@pytest.mark.parametrize("part", ["packages", "libraries"])
def test_an_unknown_toolchain_is_refused_with_those_that_there_are(assembly: Assembly, part: str) -> None:
    run = assembly.run("trt-99", "0" * 64, part)
    assert run.returncode != 0
    assert "TOOLCHAIN=trt-99: not one of trt" in run.stderr


@pytest.mark.parametrize("part", ["packages", "libraries"])
def test_no_toolchain_adds_nothing(assembly: Assembly, part: str) -> None:
    run = assembly.run("", "0" * 64, part)
    assert run.returncode == 0
    assert list((assembly.folder / "tree").iterdir()) == []
