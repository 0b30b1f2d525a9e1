"""How long `enginesmith up` takes on a warm store, how much of it is ours, and what `--help` costs.

Usage: python -m benchmarks.start_up [--rounds 7]

"Ours" is the time to Ready less that of a bare process which imports the same libraries (numpy, grpcio, ONNX Runtime),
loads the same model and runs it once, the two taken in turn.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import spread, write_record
from benchmarks.serving_overhead import _ENGINE, _ROOT

_BARE = """\
import sys, numpy, grpc, grpc.aio, google.protobuf, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
session.run(None, {"x": numpy.zeros((1, 3, 48, 192), numpy.float32)})
print("ready", flush=True)
"""


def _time_to_first_line(command: list[str]) -> float:
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if not (process.stdout or sys.stdin).readline():
        sys.exit(f"{' '.join(command)} did not start")
    seconds = time.monotonic() - start
    process.terminate()
    process.wait(30)
    return seconds


def _time(command: list[str]) -> float:
    start = time.monotonic()
    subprocess.run(command, cwd=_ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - start


def main() -> None:
    """Measure, print, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    models = Path(subprocess.check_output([_ROOT / "hack" / "fetch-models"], text=True).strip())
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "engine.yaml"
        spec.write_text(_ENGINE % (models / "cls.onnx"))
        up = [sys.executable, "-m", "enginesmith_cli.main", "up", str(spec), "--home", folder]
        up += ["--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"]
        os.environ["ENGINESMITH_LOG_FORMAT"] = "json"
        cold = _time_to_first_line(up)
        warm, bare = [], []
        for _ in range(rounds):
            warm.append(_time_to_first_line(up))
            bare.append(_time_to_first_line([sys.executable, "-c", _BARE, str(models / "cls.onnx")]))
        helps = [_time([sys.executable, "-m", "enginesmith_cli.main", "--help"]) for _ in range(rounds)]
    write_record(
        "start_up",
        {
            "coldSeconds": cold,
            "warmSeconds": spread(warm),
            "bareLibrariesSeconds": spread(bare),
            "oursSeconds": spread([a - b for a, b in zip(warm, bare, strict=True)]),
            "helpSeconds": spread(helps),
        },
    )


if __name__ == "__main__":
    main()
