"""The memory that quantising takes: weights stay in files, and one of them is in memory at a time."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

_SIDE = 2048  # a weight of 16 MiB
_LAYERS = 6

_PROGRAM = """
import re, sys
from pathlib import Path
import numpy as np
from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.calibration import Calibration
from enginesmith_contract.preparation import ModelFacts
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.prepare.fp16.cast import cast_model
from enginesmith_runtime.prepare.jobs import CastJob, Feed
from enginesmith_runtime.prepare.quantize.histograms import collect, write_histograms
from enginesmith_runtime.prepare.quantize.jobs import Data, QuantizeJob, SamplesJob
from enginesmith_runtime.prepare.quantize.normal_form import normalise_file
from enginesmith_runtime.prepare.quantize.sample_runs import run_samples
from enginesmith_runtime.prepare.quantize.samples import open_data
from enginesmith_runtime.prepare.quantize.write import write_quantized

def megabytes():
    # Not ru_maxrss: that of a new process begins with what its parent had.
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

def facts(side):
    x, y = (TensorSpec(name=name, dtype=DType.FP32, shape=(-1, side)) for name in "xy")
    return ModelFacts(inputs=(x,), outputs=(y,), opset=17, size_bytes=1)

model, normal, histograms, output = (Path(one) for one in sys.argv[2:6])
side, cast = int(sys.argv[6]), output / "cast"
before = megabytes()
if sys.argv[1] == "calibrate":
    normal.write_bytes(normalise_file(model, normal.parent).model.SerializeToString())
    values = np.random.default_rng(0).standard_normal((1, side), np.float32)
    histograms.write_bytes(write_histograms(collect(normal, [("one", {"x": values})], sys.argv[7:])))
elif sys.argv[1] == "samples":
    data = output / "data.npy"
    np.save(data, np.random.default_rng(1).standard_normal((20, side), np.float32))
    profile = Profile(name="default", inputs={"x": ShapeRange(min=(1, side), opt=(1, side), max=(4, side))})
    folder = output / "samples"
    folder.mkdir()
    read = Data(calibration=Calibration(source="data"), path=str(data), profiles=(profile,), batched=True)
    with open_data(read, facts(side), folder) as samples:
        names = samples.split().held_out
    paths = {"model": model, "normal": normal, "quantized": output / "tensorrt/model.onnx", "folder": folder}
    job = SamplesJob(
        **{name: str(path) for name, path in paths.items()},
        feed=Feed(facts=facts(side)), names=names, data=read, most_bytes=1 << 27, memory_bytes=8 << 30,
    )
    run_samples(job, lambda _: None)
else:
    cast.mkdir()
    (file, *_) = cast_model(CastJob(model=str(normal), output=str(cast), policy=PrecisionPolicy(default="fp16"))).files
    policy = PrecisionPolicy(default=Precision.INT8, calibration=Calibration(source="data"))
    paths = {"source": model, "model": normal, "cast": cast / file, "histograms": histograms, "output": output}
    write_quantized(QuantizeJob(**{name: str(path) for name, path in paths.items()}, sources={}, policy=policy))
print(megabytes() - before)
"""


@pytest.mark.slow
def test_a_model_is_quantised_for_both_backends_in_less_than_three_times_its_size(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("MatMul", [f"a{n}" if n else "x", f"w{n}"], [f"a{n + 1}"], name=f"m{n}")
        for n in range(_LAYERS)
    ]
    nodes.append(helper.make_node("Softmax", [f"a{_LAYERS}"], ["y"], name="end"))
    random = np.random.default_rng(0)
    weights = {
        f"w{n}": random.standard_normal((_SIDE, _SIDE), np.float32) * np.float32(_SIDE**-0.5) for n in range(_LAYERS)
    }
    f = TensorProto.FLOAT
    model = make_model(nodes, inputs={"x": (f, ["n", _SIDE])}, outputs={"y": (f, ["n", _SIDE])}, weights=weights)
    size = model.stat().st_size >> 20
    output = tmp_path / "out"
    output.mkdir()
    paths = [str(one) for one in (model, tmp_path / "normal.onnx", tmp_path / "histograms", output)]
    watched = [str(_SIDE), "x", *(f"a{number}" for number in range(1, _LAYERS + 1))]
    for stage in ("calibrate", "quantize", "samples"):
        command = [sys.executable, "-c", _PROGRAM, stage, *paths, *watched]
        megabytes = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert megabytes < 3 * size, f"{stage}: {megabytes} MiB for a model of {size} MiB"
    for backend in ("tensorrt", "onnxruntime"):
        assert (output / backend / "model.onnx").stat().st_size >> 20 == size // 4
