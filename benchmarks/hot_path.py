"""What one small request costs in the server's own code, without a transport: microseconds, stage by stage.

Usage: python -m benchmarks.hot_path [--calls 3000] [--repeats 15] [--profile]

The model is the small perceptron of `benchmarks.serving` (16 floats). The figure of a stage is the best of the repeats:
processor time, when nothing else disturbs it.
"""

import argparse
import cProfile
import json
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import write_record
from benchmarks.serving.models import MODELS, open_session

from enginesmith_contract.protos.inference_pb2 import ModelInferRequest
from enginesmith_contract.serve_request import ServedModel
from enginesmith_runtime.engines.interface import Array, DeviceArray
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.server.loading import Loading, load_model
from enginesmith_runtime.server.model import LoadedModel
from enginesmith_runtime.server.protocol.infer import Inference, InferenceLimits
from enginesmith_runtime.server.protocol.plan_cache import PlanCache
from enginesmith_runtime.server.protocol.request_plan import RequestPlan
from enginesmith_runtime.server.protocol.wire import split_request
from enginesmith_runtime.server.repository import Repository
from enginesmith_runtime.server.statistics import ModelStatistics, RunTimes
from enginesmith_runtime.server.transport.interface import Answer, CallContext

Stage = Callable[[], object]
_WHOLE, _ALONE = "whole request", "ONNX Runtime alone"

_DOCUMENT = """\
apiVersion: enginesmith.io/v1alpha1
kind: InferenceEngine
metadata: {{name: mlp}}
spec:
  model: {{uri: {file}}}
  profiles: [{{name: all, inputs: {{x: {{min: [1, 16], opt: [1, 16], max: [64, 16]}}}}}}]
  targets: [{{name: cpu, backend: onnxruntime}}]
"""


def main() -> None:
    """Measure, print, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--profile", action="store_true", help="print a profile and keep no record")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = MODELS["mlp"].file(Path(folder))
        served = _build(file, Path(folder))
        model = load_model(served, Loading(folder=Path(folder), queue_limit=16, reporter=SilentReporter()))
        stages = _stages(model, served, file)
        if arguments.profile:
            _profile(stages[_WHOLE], arguments.calls)
        else:
            figures = {
                name: min(_microseconds(stage, arguments.calls) for _ in range(arguments.repeats))
                for name, stage in stages.items()
            }
            figures["all but ONNX Runtime"] = figures[_WHOLE] - figures[_ALONE]
            write_record("hot_path", {"microseconds": {name: round(value, 2) for name, value in figures.items()}})
        model.pool.close(1.0)


def _build(file: Path, folder: Path) -> ServedModel:
    document = folder / "engine.yaml"
    document.write_text(_DOCUMENT.format(file=file))
    command = [sys.executable, "-m", "enginesmith_cli.main", "build", str(document), "--home", str(folder)]
    (built,) = json.loads(subprocess.check_output([*command, "--output", "json"], text=True, stderr=subprocess.DEVNULL))
    return ServedModel(
        name="mlp",
        target="cpu",
        engine_key=built["engineKey"],
        store=str(folder / "store"),
        backend_options={"intraOpThreads": "1"},
    )


def _stages(model: LoadedModel, served: ServedModel, file: Path) -> dict[str, Stage]:
    repository = Repository([served])
    repository.make_ready(model)
    inference = Inference(repository, InferenceLimits(max_message_bytes=1 << 20), None, lambda _: None)
    spec = MODELS["mlp"]
    message = spec.request(("x", "y"), None, (64, 64))
    answers: list[object] = []

    def whole() -> None:
        inference.infer(message, CallContext(may_run_here=True), answers.append)
        answers.clear()

    inference.infer(message, CallContext(may_run_here=True), answers.append)
    assert isinstance(answers[0], Answer), answers
    answers.clear()
    session, instance, feed = open_session(file), model.engine.open_instance(), {"x": spec.values()}
    return {
        _WHOLE: whole,
        **_parts(model, message, instance.infer(feed, profile=0, outputs=["y"])),
        "engine as it is called": lambda: instance.infer(feed, profile=0, outputs=["y"]),
        _ALONE: lambda: session.run(["y"], feed),
    }


def _parts(model: LoadedModel, message: bytes, outputs: dict[str, Array | DeviceArray]) -> dict[str, Stage]:
    request = split_request(message)
    plan = RequestPlan(ModelInferRequest.FromString(request.head), model, raw=True, streamed=False)
    plans, statistics = PlanCache(), ModelStatistics()
    plans.keep_layout(request, plan, message)
    layout = plans.find(message)
    assert layout is not None
    times = RunTimes(1_000, 2_000, 6_000, 2_000)
    return {
        "find the plan": lambda: plans.find(message),
        "read the inputs": lambda: layout.read_inputs(message),
        "encode the answer": lambda: plan.encode(outputs, {}, {}),
        "count the run": lambda: statistics.record_success(times, 1),
    }


def _microseconds(stage: Stage, calls: int) -> float:
    began = time.thread_time()
    for _ in range(calls):
        stage()
    return (time.thread_time() - began) / calls * 1e6


def _profile(stage: Stage, calls: int) -> None:
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(calls):
        stage()
    profile.disable()
    pstats.Stats(profile).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main()
