"""What the server costs above its own transport where messages are large: rates and processor time, side by side.

Usage: python -m benchmarks.large_messages [--rounds 7] [--seconds 2] [--clients 8]

The engine takes a few values out of its input, so nearly all that is measured is the way of the message. It is held
against the same transport with a handler that answers as many bytes at once. Clients are processes of their own that
send one prepared message over and over. Sizes are those of eight images of 224 x 224 in FP32 and in UINT8.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from benchmarks.gpu.workers import Turns, run_together, started
from benchmarks.measure import spread, write_record
from onnx import TensorProto, helper

from enginesmith_contract.protos import inference_pb2 as pb

_ROOT = Path(__file__).resolve().parent.parent
_SHAPE: Final = (8, 3, 224, 224)
_DTYPES: Final = {"FP32": (TensorProto.FLOAT, np.float32), "UINT8": (TensorProto.UINT8, np.uint8)}
_TAKEN: Final = 125
"""Values of each image in the output."""

_DOCUMENT: Final = """\
apiVersion: enginesmith.io/v1alpha1
kind: InferenceEngine
metadata: {name: %(name)s}
spec:
  model: {uri: %(uri)s}
  serving: {instances: 2, drainDelay: 0s}
  targets:
    - {name: cpu, backend: onnxruntime}
---
"""
_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")


def _model(dtype: int) -> onnx.ModelProto:
    ends = (_SHAPE[0], 1, 1, _TAKEN)
    constants = [
        helper.make_tensor("from", TensorProto.INT64, [4], np.zeros(4, np.int64)),
        helper.make_tensor("to", TensorProto.INT64, [4], ends),
    ]
    graph = helper.make_graph(
        [helper.make_node("Slice", ["x", "from", "to"], ["y"])],
        "taken",
        [helper.make_tensor_value_info("x", dtype, _SHAPE)],
        [helper.make_tensor_value_info("y", dtype, ends)],
        initializer=constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _message(name: str) -> bytes:
    request = pb.ModelInferRequest(model_name=name.lower())
    request.inputs.add(name="x", datatype=name, shape=_SHAPE)
    request.raw_input_contents.append(bytes(int(np.prod(_SHAPE)) * np.dtype(_DTYPES[name][1]).itemsize))
    return request.SerializeToString()


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[tuple[int, str]]:
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=_ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            sys.exit(f"{command[0]} did not start")
        yield process.pid, line
    finally:
        process.terminate()
        process.wait(30)


def _processor_seconds(pid: int) -> float:
    """Return what a process has used so far, in the kernel and outside."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def _measure(name: str, address: str, pid: int, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    file = folder / f"{name}.message"
    file.write_bytes(_message(name))
    answer = _SHAPE[0] * _TAKEN * np.dtype(_DTYPES[name][1]).itemsize
    with _running(["benchmarks.gpu.echo_server", str(answer)]) as (echo_pid, echo):
        commands = [
            ["benchmarks.gpu.client", one, str(file)] for one in (address, echo) for _ in range(arguments.clients)
        ]
        with started(*commands) as workers:
            ours, theirs = [], []
            for _ in range(arguments.rounds):
                ours.append(_round(workers[: arguments.clients], pid, arguments.seconds))
                theirs.append(_round(workers[arguments.clients :], echo_pid, arguments.seconds))
    return {
        "messageBytes": file.stat().st_size,
        "productPerSecond": spread([turns.rate for turns, _ in ours]),
        "echoPerSecond": spread([turns.rate for turns, _ in theirs]),
        "rateRatio": spread([a.rate / b.rate for (a, _), (b, _) in zip(ours, theirs, strict=True)]),
        "productProcessorMilliseconds": spread([cost * 1e3 for _, cost in ours]),
        "echoProcessorMilliseconds": spread([cost * 1e3 for _, cost in theirs]),
    }


def _round(workers: Any, pid: int, seconds: float) -> tuple[Turns, float]:  # noqa: ANN401 - workers
    before = _processor_seconds(pid)
    turns = run_together(workers, seconds)
    return turns, (_processor_seconds(pid) - before) / (turns.rate * seconds)


def main() -> None:
    """Measure, print, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    os.environ["ENGINESMITH_LOG_FORMAT"] = "json"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        document = folder / "engines.yaml"
        for dtype, (onnx_type, _) in _DTYPES.items():
            onnx.save(_model(onnx_type), folder / f"{dtype}.onnx")
            with document.open("a") as file:
                file.write(_DOCUMENT % {"name": dtype.lower(), "uri": folder / f"{dtype}.onnx"})
        up = ["enginesmith_cli.main", "up", str(document), "--home", name, "--address", "127.0.0.1:0"]
        with _running([*up, "--metrics-address", "none"]) as (pid, ready):
            address = json.loads(ready)["address"]
            figures = {dtype: _measure(dtype, address, pid, arguments, folder) for dtype in _DTYPES}
    write_record("large_messages", {"clients": arguments.clients, **figures})


if __name__ == "__main__":
    main()
