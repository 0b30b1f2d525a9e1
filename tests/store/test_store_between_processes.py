"""Several processes on one store: one pointer wins, a killed writer leaves nothing that is not whole."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from enginesmith_contract.store_layout import StoredFile, engine_pointer
from enginesmith_runtime.local_files.digests import digest_file
from enginesmith_runtime.store.file_store import FileStore

pytestmark = pytest.mark.slow

# Announces itself, then writes engine after engine: new bytes, then a pointer that names them.
WRITER = """
import json, os, sys
from pathlib import Path
from enginesmith_contract.store_layout import engine_pointer
from enginesmith_runtime.store.file_store import FileStore
root, work = Path(sys.argv[1]), Path(sys.argv[2])
store = FileStore.open(root)
print("ready", flush=True)
while True:
    name = os.urandom(8).hex()
    (work / name).write_bytes(os.urandom(32) * 20_000)
    files = store.put_files(work, [work / name])
    store.create_pointer(engine_pointer(name), json.dumps([file.model_dump() for file in files]).encode())
    (work / name).unlink()
"""

RACER = """
import sys
from pathlib import Path
from enginesmith_contract.store_layout import engine_pointer
from enginesmith_runtime.store.file_store import FileStore
store = FileStore.open(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(200):
    print(store.create_pointer(engine_pointer(str(number)), sys.argv[2].encode()).decode())
"""

# A shell that starts the tests in the background has them ignore SIGINT, and their children with them.
HOLDER = """
import signal, sys
from pathlib import Path
from enginesmith_runtime.store.file_store import FileStore
signal.signal(signal.SIGINT, signal.default_int_handler)
store = FileStore.open(Path(sys.argv[1]))
print("waiting", flush=True)
with store.exclusive("keys/a.json"):
    print("held", flush=True)
    sys.stdin.readline()
    store.create_pointer("keys/a.json", sys.argv[2].encode())
"""


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script, *(str(argument) for argument in arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def check_every_pointer(store: FileStore, out: Path) -> int:
    count = 0
    for name in store.list_pointers("keys/"):
        document = store.read_pointer(name)
        assert document is not None
        store.get_files([StoredFile(**file) for file in json.loads(document)], out / str(count))
        count += 1
    return count


def test_a_writer_that_is_killed_at_any_moment_leaves_only_whole_engines(tmp_path: Path) -> None:
    root, work = tmp_path / "store", tmp_path / "work"
    work.mkdir()
    moments = random.Random(20)  # noqa: S311 - moments to kill at, no secret
    writer = start(WRITER, root, work)
    while not list(root.rglob("keys/*.json")):
        assert writer.poll() is None
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    for _ in range(25):
        writer = start(WRITER, root, work)
        try:
            assert said(writer) == "ready"
            time.sleep(moments.uniform(0, 0.06))
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
    store = FileStore.open(root)
    assert check_every_pointer(store, tmp_path / "out") > 0
    for blob in (root / "blobs/sha256").glob("[!.]*"):
        assert digest_file(blob).digest == blob.name
    FileStore.open(root, now=time.time() + 2 * 24 * 3600)
    assert list(root.rglob(".tmp-*")) == []
    assert check_every_pointer(store, tmp_path / "out") > 0


def test_two_processes_that_race_for_a_key_agree_on_one_pointer(tmp_path: Path) -> None:
    racers = [start(RACER, tmp_path / "store", name) for name in ("red", "blue", "green")]
    for racer in racers:
        assert said(racer) == "ready"
    for racer in racers:
        tell(racer)
    answers = [racer.communicate()[0].split() for racer in racers]
    assert [len(answer) for answer in answers] == [200, 200, 200]
    assert answers[0] == answers[1] == answers[2]
    store = FileStore.open(tmp_path / "store")
    for number, winner in enumerate(answers[0]):
        assert store.read_pointer(engine_pointer(str(number))) == winner.encode()


def test_a_second_builder_waits_and_then_sees_the_pointer(tmp_path: Path) -> None:
    first = start(HOLDER, tmp_path / "store", "first")
    assert [said(first), said(first)] == ["waiting", "held"]
    second = start(HOLDER, tmp_path / "store", "second")
    assert said(second) == "waiting"
    tell(first)
    assert said(second) == "held"
    store = FileStore.open(tmp_path / "store")
    assert store.read_pointer("keys/a.json") == b"first"
    tell(second)
    for process in (first, second):
        process.communicate()
        assert process.returncode == 0


def test_a_holder_that_is_killed_frees_the_key(tmp_path: Path) -> None:
    first = start(HOLDER, tmp_path / "store", "first")
    assert [said(first), said(first)] == ["waiting", "held"]
    second = start(HOLDER, tmp_path / "store", "second")
    assert said(second) == "waiting"
    first.kill()
    first.communicate()
    assert said(second) == "held"
    tell(second)
    second.communicate()
    assert second.returncode == 0


def test_ctrl_c_ends_the_wait_for_another_builder(tmp_path: Path) -> None:
    first = start(HOLDER, tmp_path / "store", "first")
    assert [said(first), said(first)] == ["waiting", "held"]
    second = start(HOLDER, tmp_path / "store", "second")
    assert said(second) == "waiting"
    second.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in second.communicate()[1]
    tell(first)
    first.communicate()
    assert first.returncode == 0
