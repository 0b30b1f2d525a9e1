"""What the benchmarks share: medians with their spread, the machine's name, a record to keep."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["machine", "resident_bytes", "spread", "write_record"]


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


def write_record(name: str, figures: Mapping[str, object]) -> None:
    """Print the record, and write it to `benchmarks/records/<name>.json`."""
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"python -m benchmarks.{name} {' '.join(sys.argv[1:])}".strip(),
        "machine": machine(),
        **figures,
    }
    text = json.dumps(record, indent=2)
    folder = Path(__file__).parent / "records"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(text + "\n")
    print(text)
