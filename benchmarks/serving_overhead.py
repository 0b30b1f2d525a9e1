"""What the server costs above grpcio and ONNX Runtime alone: requests a second, latency and memory, side by side.

Usage: python -m benchmarks.serving_overhead [--rounds 7] [--seconds 3] [--in-flight 1,4]

Both servers run the same engine file (PP-OCRv4 cls, [1, 3, 48, 192] FP32) with the same session options, two inferences
at once; one client process drives them in turn, A B A B, so that a machine that slows down slows both.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
from benchmarks.measure import resident_bytes, spread, write_record

from enginesmith_contract.protos import inference_pb2 as pb

_ROOT = Path(__file__).resolve().parent.parent
_SHAPE = (1, 3, 48, 192)
_INSTANCES = 2
_ENGINE = """\
apiVersion: enginesmith.io/v1alpha1
kind: InferenceEngine
metadata: {name: cls}
spec:
  model: {uri: %s}
  profiles:
    - name: line
      inputs: {x: {min: [1, 3, 48, 192], opt: [1, 3, 48, 192], max: [4, 3, 48, 192]}}
  serving: {instances: 2, drainDelay: 0s}
  targets:
    - {name: cpu, backend: onnxruntime}
"""
_SESSION_ONLY = """\
import sys, onnxruntime, numpy
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
session.run(None, {"x": numpy.zeros((1, 3, 48, 192), numpy.float32)})
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[tuple[int, str]]:
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    try:
        line = (process.stdout or sys.stdin).readline().strip()
        if not line:
            sys.exit(f"{command[2]} did not start")
        yield process.pid, line
    finally:
        process.terminate()
        process.wait(30)


def _drive(address: str, in_flight: int, seconds: float) -> tuple[float, float]:
    """Return requests a second and the median latency in milliseconds."""
    data = np.random.default_rng(0).random(_SHAPE, np.float32)
    request = pb.ModelInferRequest(model_name="cls")
    request.inputs.add(name="x", datatype="FP32", shape=_SHAPE)
    request.raw_input_contents.append(data.tobytes())
    message = request.SerializeToString()
    latencies: list[float] = []
    stop = time.monotonic() + seconds
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        call(message)

        def loop() -> None:
            while (start := time.monotonic()) < stop:
                call(message)
                latencies.append(time.monotonic() - start)

        threads = [threading.Thread(target=loop) for _ in range(in_flight)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return len(latencies) / seconds, float(np.median(latencies)) * 1e3


def main() -> None:
    """Measure, print, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--in-flight", default="1,4")
    arguments = parser.parse_args()
    models = Path(subprocess.check_output([_ROOT / "hack" / "fetch-models"], text=True).strip())
    os.environ["ENGINESMITH_LOG_FORMAT"] = "json"
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        spec = Path(folder) / "engine.yaml"
        spec.write_text(_ENGINE % (models / "cls.onnx"))
        up = [sys.executable, "-m", "enginesmith_cli.main", "up", str(spec), "--home", folder]
        product, ready = stack.enter_context(
            _running([*up, "--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"])
        )
        address = json.loads(ready)["address"]
        (pointer,) = (Path(folder) / "store" / "keys").glob("*.json")
        digest = json.loads(pointer.read_text())["files"][0]["digest"]
        model = str(Path(folder) / "store" / "blobs" / "sha256" / digest)
        bare, bare_address = stack.enter_context(
            _running([sys.executable, "-m", "benchmarks.bare_server", model, str(_INSTANCES)])
        )
        session, _ = stack.enter_context(_running([sys.executable, "-c", _SESSION_ONLY, model]))
        figures: dict[str, object] = {}
        for in_flight in map(int, arguments.in_flight.split(",")):
            ours, theirs = [], []
            for _ in range(arguments.rounds):
                ours.append(_drive(address, in_flight, arguments.seconds))
                theirs.append(_drive(bare_address, in_flight, arguments.seconds))
            figures[f"inFlight{in_flight}"] = {
                "productRequestsPerSecond": spread([rate for rate, _ in ours]),
                "bareRequestsPerSecond": spread([rate for rate, _ in theirs]),
                "rateRatio": spread([a[0] / b[0] for a, b in zip(ours, theirs, strict=True)]),
                "medianLatencyRatio": spread([a[1] / b[1] for a, b in zip(ours, theirs, strict=True)]),
            }
        figures["memoryMiB"] = {
            "product": resident_bytes(product) >> 20,
            "bareServer": resident_bytes(bare) >> 20,
            "onnxRuntimeSessionAlone": resident_bytes(session) >> 20,
        }
        write_record("serving_overhead", figures)


if __name__ == "__main__":
    main()
