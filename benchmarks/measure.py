"""What the benchmarks share: medians with their spread, the machine's name, a record to keep."""

import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["command", "machine", "resident_bytes", "spread", "today", "write_record"]


def machine() -> str:
    """Return what the figures were taken on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return f"{model}, {os.cpu_count()} CPUs, Python {platform.python_version()}"


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def resident_bytes(pid: int) -> int:
    """Return the memory that belongs to this process alone or in part (proportional set size), in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise LookupError(pid)


def today() -> str:
    """Return the date as records have it."""
    return datetime.now(UTC).date().isoformat()


def command(name: str) -> str:
    """Return the command line of this run of a benchmark."""
    return shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]])


def write_record(name: str, figures: Mapping[str, object], *, show: bool = True) -> None:
    """Write the record to `benchmarks/records/<name>.json`; with `show`, print it as well."""
    record = {
        "date": today(),
        "command": command(name),
        "machine": machine(),
        **figures,
    }
    text = json.dumps(record, indent=2)
    folder = Path(__file__).parent / "records"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(text + "\n")
    if show:
        print(text)
