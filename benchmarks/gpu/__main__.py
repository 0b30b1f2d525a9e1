"""The whole run on one GPU machine, section by section, into one record.

Usage: python -m benchmarks.gpu --work DIR --models DIR [--out FILE] [--sections a,b] [--quick] [--backend tensorrt]

Each section runs in a process of its own, so that one that dies (TensorRT may abort) costs only its own figures; what
it found is kept under DIR/sections, and a later call with other sections adds to it. With `--backend onnxruntime` the
same program runs without a GPU: the same documents, server and clients, ONNX Runtime in TensorRT's place; its record
says so, and none of its figures is one of a GPU.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu.batching import measure_batching
from benchmarks.gpu.building import build_all
from benchmarks.gpu.cache_reuse import measure_cache_reuse
from benchmarks.gpu.documents import Workplace
from benchmarks.gpu.execution import measure_execution
from benchmarks.gpu.machine import describe_machine
from benchmarks.gpu.precision import measure_precision
from benchmarks.gpu.promises import judge
from benchmarks.gpu.refusals import try_bad_input
from benchmarks.gpu.serving import measure_serving

__all__: list[str] = []

_SECTIONS: Final[dict[str, Callable[[Workplace, argparse.Namespace], dict[str, Any]]]] = {
    "machine": lambda _work, _arguments: describe_machine(),
    "builds": lambda work, arguments: build_all(work, quick=arguments.quick, limit_seconds=arguments.build_limit),
    "timingCache": lambda work, arguments: measure_cache_reuse(
        work,
        level=arguments.cache_level,
        budget_seconds=arguments.cache_budget,
        wanted=arguments.cache_edits.split(",") if arguments.cache_edits else (),
    ),
    "execution": lambda work, arguments: measure_execution(work, rounds=arguments.rounds, seconds=arguments.seconds),
    "serving": lambda work, arguments: measure_serving(
        work, rounds=arguments.rounds, seconds=arguments.seconds, quick=arguments.quick
    ),
    "precision": lambda work, arguments: measure_precision(
        work,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        budget_seconds=arguments.precision_budget,
        build_limit=arguments.build_limit,
        wanted=_wanted(arguments),
    ),
    "batching": lambda work, arguments: measure_batching(
        work,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        budget_seconds=arguments.batching_budget,
        load_client=arguments.load_client,
    ),
    "refusals": lambda work, _arguments: try_bad_input(work),
}
_ON_A_GPU_ONLY: Final = frozenset({"timingCache", "execution", "refusals"})
_SECTION_SECONDS: Final = 1200
_QUICK_PRECISION: Final = ("precision-cls-fp16", "precision-cls-int8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="folder with det.onnx, rec.onnx and cls.onnx")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sections", default=",".join(_SECTIONS))
    parser.add_argument("--section", choices=tuple(_SECTIONS), help=argparse.SUPPRESS)
    parser.add_argument("--backend", default="tensorrt", choices=("tensorrt", "onnxruntime"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--build-limit", type=float, default=200.0, help="seconds of one build")
    parser.add_argument("--cache-level", type=int, default=1, help="optimisation level of section timingCache")
    parser.add_argument("--cache-edits", default="", help="names of the parts of section timingCache; default: all")
    parser.add_argument("--cache-budget", type=float, default=280.0, help="seconds of section timingCache")
    parser.add_argument("--precision-budget", type=float, default=400.0, help="seconds of section precision")
    parser.add_argument("--precision-only", default="", help="names of engines and variants of section precision")
    parser.add_argument("--batching-budget", type=float, default=120.0, help="seconds of section batching")
    parser.add_argument("--load-client", default="", help="native client of benchmarks.serving, for section batching")
    parser.add_argument("--quick", action="store_true", help="the small engines only")
    return parser.parse_args()


def _wanted(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the engines of section precision that are wanted; none: all."""
    named = tuple(filter(None, arguments.precision_only.split(",")))
    return named or (_QUICK_PRECISION if arguments.quick else ())


def _run_section(name: str, arguments: argparse.Namespace, work: Workplace) -> None:
    begun = time.monotonic()
    try:
        found = _SECTIONS[name](work, arguments)
    except Exception as error:  # noqa: BLE001 - the record says what happened
        path = work.sections / f"{name}.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        found = {**known, "failed": f"{type(error).__name__}: {error}"}
    found["tookSeconds"] = round(time.monotonic() - begun, 1)
    (work.sections / f"{name}.json").write_text(json.dumps(found))


def _spawn(name: str) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:], "--section", name]
    begun = time.monotonic()
    try:
        status = subprocess.run(command, timeout=_SECTION_SECONDS, check=False).returncode
    except subprocess.TimeoutExpired:
        status = -1
    print(f"{name}: exit status {status} after {time.monotonic() - begun:.0f} s", flush=True)


def _write_record(work: Workplace, out: Path | None) -> dict[str, Any]:
    """Return what every section has found so far, and write it."""
    record: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "program": "python -m benchmarks.gpu",
        "backend": work.backend,
    }
    if work.backend != "tensorrt":
        record["note"] = "run without a GPU, ONNX Runtime in TensorRT's place: no figure here is one of a GPU"
    for name in _SECTIONS:
        path = work.sections / f"{name}.json"
        if path.exists():
            record[name] = json.loads(path.read_text())
    record["promises"] = judge(record) if work.backend == "tensorrt" else []
    # The record must not contain the paths of the program and its files.
    text = json.dumps(record, indent=1).replace(f"{Path.cwd()}/", "").replace(str(work.root), "WORK")
    text = text.replace(f"{Path(__file__).resolve().parents[2]}/", "")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
    return record


def main() -> None:
    """Run the sections and write the record."""
    arguments = _parse()
    work = Workplace(root=arguments.work, backend=arguments.backend)
    if arguments.section:
        _run_section(arguments.section, arguments, work)
        return
    work.lay_out(arguments.models)
    record: dict[str, Any] = {"promises": []}
    for name in arguments.sections.split(","):
        if arguments.backend == "tensorrt" or name not in _ON_A_GPU_ONLY:
            _spawn(name)
            record = _write_record(work, arguments.out)
    for promise in record["promises"]:
        print(json.dumps(promise))


if __name__ == "__main__":
    main()
