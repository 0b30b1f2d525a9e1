"""The whole scenario on a cluster with a real GPU, part by part, into one record.

Usage: python -m benchmarks.gpu_cluster OUT [--parts a,b] [--backend tensorrt] [--no-quick-start]

`hack/cluster up` and `hack/cluster load` come first. Each part runs in a process and a time limit of its own. It writes
what it found at once, a line of JSON each, to OUT/results.jsonl; a part that fails does not stop the others. After each
part, OUT/record.json is written of all that OUT holds, so that a later call with other parts adds to it. With
`--backend onnxruntime` the same program runs on nodes whose GPUs are simulated: a rehearsal. Its figures are not kept.
"""

import argparse
import importlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.gpu_cluster.record import write_record
from benchmarks.gpu_cluster.workplace import ROOT, Settings, Workplace, open_workplace

__all__: list[str] = []


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A part: the module of this name, whose `run` gets the workplace.

    Attributes:
        what: it does, in a few words.
        seconds: that it may take.
    """

    what: str
    seconds: int


# By value: what comes later is what a visit that is cut short can do without.
_PARTS: Final[dict[str, _Part]] = {
    "installing": _Part(what="chart, account, models", seconds=120),
    "first_answers": _Part(what="apply, first answer, then the full engine under a steady client", seconds=270),
    "rebuilding": _Part(what="a larger profile: what the timing cache saves", seconds=200),
    "one_gpu": _Part(what="one GPU: wait and replace", seconds=220),
    "answers": _Part(what="answers and latency against ONNX Runtime", seconds=270),
    "reading": _Part(what="a page of text through three Services", seconds=60),
    "rollouts": _Part(what="replicas, precision and back under a steady client", seconds=240),
    "faults": _Part(what="pod deleted, kubelet away, memory taken, images and labels that lie", seconds=420),
    "deleting": _Part(what="nothing is left", seconds=120),
}


def main() -> int:
    """Run the parts; return how many of them failed."""
    arguments = _parse()
    settings = Settings(
        out=arguments.out.absolute(),
        backend=arguments.backend,
        patience=arguments.patience,
        is_quick=arguments.quick_start and arguments.backend == "tensorrt",
    )
    if arguments.part:
        work = open_workplace(settings)
        with work.recording(arguments.part):
            importlib.import_module(f"benchmarks.gpu_cluster.{arguments.part}").run(work)
        return 0
    settings.out.mkdir(parents=True, exist_ok=True)
    work = open_workplace(settings)
    work.note_machine()
    failed = 0
    for name in arguments.parts.split(","):
        failed += not _run(name, work)
        write_record(settings.out)
    return failed


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_cluster", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--parts", default=",".join(_PARTS), help="some of: %(default)s")
    parser.add_argument("--part", choices=tuple(_PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--backend", default="tensorrt", choices=("tensorrt", "onnxruntime"))
    parser.add_argument("--patience", type=float, default=1.0, help="factor of all time limits; default %(default)s")
    parser.add_argument("--quick-start", default=True, action=argparse.BooleanOptionalAction)
    return parser.parse_args()


def _run(name: str, work: Workplace) -> bool:
    """Run a part in a process of its own; return whether it succeeded."""
    command = [sys.executable, "-m", "benchmarks.gpu_cluster", *sys.argv[1:], "--part", name]
    paths = [ROOT / "examples" / "ocr", os.environ.get("PYTHONPATH", "")]
    log = work.settings.out / f"{name}.log"
    begun = time.monotonic()
    with log.open("w") as file:
        try:
            status = subprocess.run(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
                cwd=ROOT,
                timeout=_PARTS[name].seconds * work.settings.patience,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            status = -1
    seconds = round(time.monotonic() - begun, 1)
    why = "" if status == 0 else log.read_text(errors="replace")[-1500:]
    work.note(name, "part", what=_PARTS[name].what, exitStatus=status, seconds=seconds, why=why)
    print(f"{name}: exit status {status} after {seconds:.0f} s\n{why}", flush=True)
    return status == 0


if __name__ == "__main__":
    sys.exit(main())
