"""Full and read-only disks: small real file systems in a mount namespace that ends with its process."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROLOGUE = """
import sys
from pathlib import Path
from enginesmith_contract.errors import StoreError
from enginesmith_runtime.store.open import open_store
disk, other = Path(sys.argv[1]), Path(sys.argv[2])
def failure(call):
    try:
        call()
    except StoreError as error:
        return error
    raise SystemExit("no error")
"""


def run_on_small_disk(tmp_path: Path, script: str, *, mebibytes: int = 2) -> list[str]:
    disk, other = tmp_path / "disk", tmp_path / "other"
    disk.mkdir()
    other.mkdir()
    mount = f'mount -t tmpfs -o size={mebibytes}m tmpfs "$1" && exec "$0" -c "$3" "$1" "$2"'
    run = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, sys.executable, disk, other, PROLOGUE + script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_an_engine_too_large_for_the_disk_is_refused_before_it_is_written(tmp_path: Path) -> None:
    lines = run_on_small_disk(
        tmp_path,
        """
(other / "engine").write_bytes(bytes(3 << 20))
error = failure(lambda: open_store(str(disk / "store")).put_files(other, [Path("engine")]))
print(error.reason, error.exit_code)
print(error)
print([path.name for path in disk.rglob("*") if path.is_file()])
""",
    )
    assert lines[0] == "DiskFull 18"
    assert "3.0 MiB are needed" in lines[1]
    assert "are free" in lines[1]
    assert lines[2] == "[]"


def test_a_disk_that_fills_up_while_writing_leaves_nothing_half_written(tmp_path: Path) -> None:
    lines = run_on_small_disk(
        tmp_path,
        """
import enginesmith_runtime.store.file_store as file_store
# As another writer does it, which takes the room after this one has looked.
look = file_store.free_bytes
def look_and_fill(path):
    free = look(path)
    (disk / "another").write_bytes(bytes(1 << 20))
    return free
file_store.free_bytes = look_and_fill
(other / "engine").write_bytes(bytes(1500 << 10))
store = open_store(str(disk / "store"))
error = failure(lambda: store.put_files(other, [Path("engine")]))
print(error.reason)
print([path.name for path in disk.rglob("*") if path.is_file()])
(disk / "another").unlink()
file_store.free_bytes = look
print(len(store.put_files(other, [Path("engine")])))
""",
    )
    assert lines == ["DiskFull", "['another']", "1"]


def test_a_pointer_on_a_full_disk_is_not_created(tmp_path: Path) -> None:
    lines = run_on_small_disk(
        tmp_path,
        """
store = open_store(str(disk / "store"))
store.create_pointer("keys/a.json", b"1")
with (disk / "filler").open("wb", buffering=0) as filler:
    try:
        while filler.write(bytes(4096)):
            pass
    except OSError:
        pass
error = failure(lambda: store.create_pointer("keys/b.json", b"x" * 5000))
print(error.reason)
print(list(store.list_pointers("keys/")), [path.name for path in disk.rglob(".tmp-*")])
""",
    )
    assert lines == ["DiskFull", "['keys/a.json'] []"]


def test_files_on_another_disk_are_laid_out_as_copies(tmp_path: Path) -> None:
    lines = run_on_small_disk(
        tmp_path,
        """
(other / "engine").write_bytes(b"engine")
store = open_store(str(disk / "store"))
path = store.get_files(store.put_files(other, [Path("engine")]), other / "out")
print(path.read_bytes(), path.is_symlink(), path.stat().st_nlink)
""",
    )
    assert lines == ["b'engine' False 1"]


def test_a_read_only_store_is_read_and_refuses_writes_legibly(tmp_path: Path) -> None:
    lines = run_on_small_disk(
        tmp_path,
        """
import subprocess
(other / "engine").write_bytes(b"engine")
(other / "newer").write_bytes(b"newer")
store = open_store(str(disk / "store"))
files = store.put_files(other, [Path("engine")])
store.create_pointer("keys/a.json", b"1")
subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)
store = open_store(str(disk / "store"))
print(store.read_pointer("keys/a.json"), list(store.list_pointers("")))
print(store.get_files(files, other / "out").read_bytes())
with store.exclusive("keys/a.json"):
    print("held")
for call in (
    lambda: store.put_files(other, [Path("newer")]),
    lambda: store.create_pointer("keys/b.json", b"1"),
    lambda: store.replace_pointer("keys/a.json", b"1"),
):
    error = failure(call)
    print(error.reason, str(disk) in str(error), bool(error.remedy))
""",
    )
    assert lines == ["b'1' ['keys/a.json']", "b'engine'", "held", *["ReadOnly True True"] * 3]
