"""Waiting for what a test needs, however slow the machine is, and requests that run until the test lets them end."""

import threading
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from enginesmith_contract.protos import inference_pb2 as pb

RUN, RUN_OUT_OF_MEMORY, FAIL, HANG, HOLD, HOLD_AND_FAIL = range(6)
"""Commands of the engine in `fake_gpu_server.py`."""


def wait_for(what: Callable[[], bool], *, seconds: float = 120.0) -> None:
    """Wait until `what` holds; the limit is for a product that is broken, and no measure of speed."""
    for _ in range(int(seconds / 0.01)):
        if what():
            return
        threading.Event().wait(0.01)
    pytest.fail("it never came")


def metrics_of(server: Any) -> dict[str, float]:
    """Return a server's metrics by name and labels."""
    with urllib.request.urlopen(f"http://{server.ready['metrics']}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def metric_of(server: Any, *names: str) -> float:
    """Return the sum of metrics over all labels."""
    return sum(value for name, value in metrics_of(server).items() if name.partition("{")[0] in names)


def wait_until_pending(server: Any, count: int) -> None:
    """Wait until `count` inferences run or wait."""
    wait_for(lambda: metric_of(server, "enginesmith_requests_in_flight", "enginesmith_requests_queued") == count)


def doubler_request(command: int, value: float = 1.0, *, model: str = "doubler", **fields: Any) -> pb.ModelInferRequest:
    """Return a request for the fake GPU's engine."""
    tensor = pb.ModelInferRequest.InferInputTensor
    return pb.ModelInferRequest(
        model_name=model,
        inputs=[
            tensor(name="command", datatype="INT64", shape=[1]),
            tensor(name="data", datatype="FP32", shape=[2]),
        ],
        raw_input_contents=[np.array([command], np.int64).tobytes(), np.full(2, value, np.float32).tobytes()],
        **fields,
    )
