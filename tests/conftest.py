"""Fixtures that every test may use."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--second-try`."""
    parser.addoption("--second-try", action="store_true", help="run a failed test of real processes once more")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a test that uses the cluster without a mark that says so, and apply `--second-try`."""
    unmarked = [
        item.nodeid
        for item in items
        if "cluster" in getattr(item, "fixturenames", ()) and item.get_closest_marker("cluster") is None
    ]
    if unmarked:
        raise pytest.UsageError(f"these tests use the cluster and lack pytest.mark.cluster: {', '.join(unmarked)}")
    if config.getoption("--second-try"):
        for item in items:
            # A machine that stalls for seconds fails one of some thousand such tests. What needs no process is exact.
            if item.get_closest_marker("cluster") or item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session")
def ocr_models() -> Path:
    """A folder with det.onnx, rec.onnx and cls.onnx: the PaddlePaddle exports of PP-OCRv4 (read only)."""
    run = subprocess.run([ROOT / "hack" / "fetch-models"], check=True, capture_output=True, text=True)
    return Path(run.stdout.strip())


@pytest.fixture
def run_restricted() -> Callable[..., "subprocess.Popen[str]"]:
    """Starts a module as a restricted pod would: user 65532 without a home or capabilities, one folder to write to.

    `run_restricted(folder, "enginesmith_runtime.pull", variables)`; TMPDIR is the folder's `tmp`.
    """

    def start(folder: Path, module: str, variables: Mapping[str, str], *arguments: str) -> "subprocess.Popen[str]":
        scratch = folder / "tmp"
        scratch.mkdir(exist_ok=True)
        # The inner namespace takes the capabilities away that the mounts need.
        mounts = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"'
        inner = ["unshare", "--map-user=65532", "--map-group=65532", "env", "-i"]
        environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(scratch), **variables}
        return subprocess.Popen(
            [
                *("unshare", "--map-root-user", "--mount", "sh", "-c", mounts, str(folder), *inner),
                *(f"{name}={value}" for name, value in environment.items()),
                *(sys.executable, "-B", "-P", "-m", module, *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start
