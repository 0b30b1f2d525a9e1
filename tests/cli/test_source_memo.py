"""What is remembered of a local model holds only while the model is what it was."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

from enginesmith_cli.source_memo import SourceMemo

_OLD_NS = 3_600_000_000_000


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _replace(path: Path) -> None:
    path.rename(path.with_suffix(".old"))
    _write(path, b"weights")


def _touch(path: Path) -> None:
    os.utime(path, ns=(time.time_ns(), time.time_ns() - _OLD_NS // 2))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: _write(path, b"longer than before"), id="another size"),
        pytest.param(lambda path: _write(path, b"weight2"), id="same size, other bytes"),
        pytest.param(_touch, id="another time"),
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(_replace, id="replaced"),
    ],
)
def test_a_model_whose_weights_changed_is_read_again(tmp_path: Path, change: Callable[[Path], None]) -> None:
    memo, model, weights = SourceMemo(tmp_path / "memo"), tmp_path / "model.onnx", tmp_path / "model.bin"
    _write(model, b"model")
    _write(weights, b"weights")
    memo.remember(model, [model, weights], "digest", begun_ns=time.time_ns() + _OLD_NS)
    assert memo.recall(model, None) == "digest"
    change(weights)
    assert memo.recall(model, None) is None


def test_a_model_that_was_written_within_a_tick_of_the_clock_is_not_remembered(tmp_path: Path) -> None:
    memo, model = SourceMemo(tmp_path / "memo"), tmp_path / "model.onnx"
    _write(model, b"model")
    memo.remember(model, [model], "digest", begun_ns=model.stat().st_ctime_ns + 1_000_000)
    assert memo.recall(model, None) is None


def test_an_expected_digest_is_never_taken_on_trust(tmp_path: Path) -> None:
    memo, model, weights = SourceMemo(tmp_path / "memo"), tmp_path / "model.onnx", tmp_path / "model.bin"
    _write(model, b"model")
    _write(weights, b"weights")
    digest = sha256(b"model").hexdigest()
    memo.remember(model, [model], digest, begun_ns=time.time_ns() + _OLD_NS)
    assert memo.recall(model, digest) == digest
    assert memo.recall(model, "0" * 64) is None
    memo.remember(model, [model, weights], "of both", begun_ns=time.time_ns() + _OLD_NS)
    assert memo.recall(model, digest) is None


def test_a_damaged_entry_costs_a_second_look_and_nothing_else(tmp_path: Path) -> None:
    memo, model = SourceMemo(tmp_path / "memo"), tmp_path / "model.onnx"
    _write(model, b"model")
    memo.remember(model, [model], "digest", begun_ns=time.time_ns() + _OLD_NS)
    (entry,) = (tmp_path / "memo").iterdir()
    entry.write_bytes(entry.read_bytes()[:10])
    assert memo.recall(model, None) is None


@pytest.mark.slow
def test_a_second_up_loads_no_model_library_before_it_becomes_the_server(command_line: CommandLine) -> None:
    # A file's change time cannot be set back: the model has to grow old.
    time.sleep(2.1)
    assert command_line.run("build", "engine.yaml").returncode == 0
    program = (
        "import os, sys\n"
        "heavy = ('onnx', 'onnxruntime', 'grpc', 'httpx', 'fsspec')\n"
        "os.execv = lambda *_: (print([m for m in heavy if m in sys.modules], flush=True), os._exit(0))\n"
        "from enginesmith_cli.main import main\n"
        "main(['up', 'engine.yaml', '--address', '127.0.0.1:0', '--metrics-address', 'none'])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=command_line.folder,
        env=os.environ | {"ENGINESMITH_HOME": str(command_line.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[]"
