"""What the engines answer through their Services, against ONNX Runtime, and how long a request takes."""

import time
from typing import Final

import numpy as np
from benchmarks.gpu_cluster.asking import first_answer, latency
from benchmarks.gpu_cluster.documents import SHAPES, apply_engine, builds, facts, serves_full_engine
from benchmarks.gpu_cluster.workplace import Workplace, models
from client import Client
from tests.cluster.engines import Document
from tests.cluster.inference import model_answer, service_address

__all__ = ["compare", "run"]

_PART: Final = "answers"


def run(work: Workplace) -> None:
    """Compare the classifier as it is; then det and rec in FP32, built at the same time."""
    cls = work.tenant("cls")
    # The part before may have left its full engine to be built, and three builds at once take longer than these two.
    work.until(lambda: serves_full_engine(cls, "cls"), "the classifier is up to date", seconds=240)
    work.note(_PART, "cls fp16", **compare(work, "cls"))
    begun = time.monotonic()
    for model in ("det", "rec"):
        apply_engine(work, model, precision="fp32")
    waiting = {"det", "rec"}
    while waiting and time.monotonic() < begun + 220 * work.settings.patience:
        for model in sorted(waiting):
            if serves_full_engine(work.tenant(model), model):
                waiting.discard(model)
                seconds = round(time.monotonic() - begun, 2)
                # kube-proxy may have the new pod a moment later than the status has.
                first_answer(work, model, SHAPES[model][0], seconds=30)
                work.note(_PART, f"{model} fp32", seconds=seconds, **compare(work, model))
        time.sleep(0.5)
    for model in sorted(waiting):
        work.note(_PART, f"{model} fp32", seconds=None, status=facts(work.tenant(model), model))
    work.note(_PART, "builds", builds=builds(cls))
    for model in ("cls", "rec", "det"):
        for shape in SHAPES[model] if model not in waiting else ():
            name = f"latency {model} {'x'.join(map(str, shape))}"
            work.note(_PART, name, **latency(work.tenant(model), model, shape, times=50))


def compare(work: Workplace, model: str) -> Document:
    """Return the largest difference from ONNX Runtime at each shape, absolute and as a part of the largest value."""
    found = []
    with Client(service_address(work.tenant(model), model)) as client:
        for shape in SHAPES[model]:
            tensor = np.random.default_rng(7).uniform(-1, 1, shape).astype(np.float32)
            (want,) = model_answer(models() / f"{model}.onnx", {"x": tensor}).values()
            got = client.infer(model, tensor)
            same_shape = got.shape == want.shape
            difference = float(np.max(np.abs(got - want))) if same_shape else None
            scale = float(np.max(np.abs(want)))
            found.append(
                {
                    "shape": shape,
                    "sameShape": same_shape,
                    "absolute": difference,
                    "relative": None if difference is None else difference / scale,
                }
            )
    known = [one["relative"] for one in found if isinstance(one["relative"], float)]
    return {"worstRelative": max(known) if len(known) == len(found) else None, "shapes": found}
