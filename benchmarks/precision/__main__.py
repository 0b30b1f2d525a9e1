"""Models in every precision: lines read, found and turned by PP-OCRv4, labelled digits named; each with its interval.

Usage: python -m benchmarks.precision [--only rec,cls,det,digits] [--variants fp16,int8] [--share 1.0] [--no-record]

It needs fonts: apt-get install fonts-noto-cjk fonts-wqy-zenhei fonts-wqy-microhei fonts-arphic-ukai fonts-arphic-uming
fonts-dejavu-core. "Same" counts answers that are those of FP32, "right" answers that are true, "true" boxes that are
lines. Calibration data comes from other texts than those judged. FP16 and BF16 are emulated, and nothing is optimised,
so that each graph is computed as written. The record is `benchmarks/records/precision.json`; models and precisions
that a run leaves out stay in it as they were.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import command, today, write_record

from enginesmith_cli.tables import table_lines

ROOT: Final = Path(__file__).resolve().parents[2]
_RECORD: Final = ROOT / "benchmarks" / "records" / "precision.json"
_MODELS: Final = ("digits", "cls", "rec", "det")


def main() -> None:
    """Judge, print, keep the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--only", default=",".join(_MODELS), help="some of: %(default)s")
    parser.add_argument("--variants", default="", help="names of precisions, with commas; default: all")
    parser.add_argument("--share", type=float, default=1.0, help="of the samples that are judged; default %(default)s")
    parser.add_argument(
        "--work", type=Path, help="folder that keeps what is made, so that a run can be continued; default: none"
    )
    parser.add_argument("--no-record", action="store_true", help="only print")
    arguments = parser.parse_args()
    run = {"date": today(), "command": command("precision")}
    with tempfile.TemporaryDirectory() as made:
        for name in arguments.only.split(","):
            found = _judge(name, arguments, (arguments.work or Path(made)).absolute())
            _print(name, found)
            if not arguments.no_record:
                _keep(name, found, run)


def _keep(name: str, found: dict[str, Any], run: Mapping[str, str]) -> None:
    """Write the record; precisions of the same samples that this run left out stay as they were.

    Each row names its run: a record is often put together from several.
    """
    found = {**found, "precisions": {one: {**row, **run} for one, row in found["precisions"].items()}}
    models = json.loads(_RECORD.read_text())["models"] if _RECORD.exists() else {}
    before = models.get(name, {})
    if before.get("samples") == found["samples"]:
        found = {**found, "precisions": {**before["precisions"], **found["precisions"]}}
    write_record("precision", {"models": {**models, name: found}}, show=False)


def _judge(name: str, arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Judge one model in a process of its own, which finds the decoding of examples/ocr."""
    paths = [ROOT / "examples" / "ocr", os.environ.get("PYTHONPATH", "")]
    words = (name, str(work / name), arguments.variants, str(arguments.share))
    answer = subprocess.check_output(
        [sys.executable, "-m", "benchmarks.precision.judging", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        cwd=ROOT,
        text=True,
    )
    result: dict[str, Any] = json.loads(answer)
    return result


def _print(name: str, result: dict[str, Any]) -> None:
    print(f"\n{name}: {result['samples']} samples, {result['calibration']} others to calibrate with\n")
    head = ("PRECISION", "SAME AS FP32", "RIGHT", "TRUE BOXES", "SIZE", "KEPT", "SECONDS", "NOTE")
    rows = [
        (one, "-", "-", "-", "-", "-", "-", row["failure"])
        if "failure" in row
        else (one, *(_share(row.get(kind)) for kind in ("same", "right", "true")), f"{row['size']:.3f}x",
              str(row["kept"]), f"{row['seconds']:.0f}", "")
        for one, row in result["precisions"].items()
    ]  # fmt: skip
    print("\n".join(table_lines(head, rows)), flush=True)


def _share(share: dict[str, Any] | None) -> str:
    if share is None:
        return "-"
    low, high = share["wilson95"]
    return f"{100 * share['share']:.1f}% ({100 * low:.1f}-{100 * high:.1f})"


if __name__ == "__main__":
    main()
