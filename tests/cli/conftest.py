"""The command line as a user starts it: real processes, a home of their own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

CLS = """\
apiVersion: enginesmith.io/v1alpha1
kind: InferenceEngine
metadata: {name: cls}
spec:
  model: {uri: cls.onnx}
  profiles:
    - name: line
      inputs:
        x: {min: [1, 3, 48, 192], opt: [2, 3, 48, 192], max: [4, 3, 48, 192]}
  serving: {drainDelay: 100ms}
  targets:
    - {name: gpu, gpu: {minMemory: 4Gi}}
    - {name: cpu, backend: onnxruntime, standby: true}
"""


@dataclass(frozen=True)
class UpServer:
    """A running `enginesmith up`: its process, its address and what it said on stderr."""

    process: subprocess.Popen[str]
    address: str
    models: tuple[str, ...]
    log: Path

    def stop(self) -> int:
        """Send SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


class CommandLine:
    """`enginesmith` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"

    @property
    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ENGINESMITH_")}
        return inherited | {"ENGINESMITH_HOME": str(self.home), "ENGINESMITH_LOG_FORMAT": "json"}

    def start(self, *words: str, stderr: int | None = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "enginesmith_cli.main", *words],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        process = self.start(*words)
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    @contextmanager
    def up(self, file: str = "engine.yaml") -> Iterator[UpServer]:
        """Run `up` until it is ready; it is stopped at the end."""
        log = self.folder / "up.log"
        with log.open("w") as stderr:
            process = self.start(
                "up", file, "--address", "127.0.0.1:0", "--metrics-address", "none", stderr=stderr.fileno()
            )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            ready = json.loads(line)
            yield UpServer(process, ready["address"], tuple(ready["models"]), log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(120)


@pytest.fixture
def command_line(tmp_path: Path, ocr_models: Path) -> CommandLine:
    """A folder with cls.onnx and engine.yaml, and an empty home."""
    shutil.copy(ocr_models / "cls.onnx", tmp_path)
    (tmp_path / "engine.yaml").write_text(CLS)
    return CommandLine(tmp_path)
