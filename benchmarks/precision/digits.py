"""A classifier with labels: which digit a picture shows."""

import io
import os
import subprocess
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from benchmarks.precision.tasks import Model, Shares, Task, count_equal
from detect import Float32Array
from onnx import TensorProto, helper, numpy_helper
from typing_extensions import override

__all__ = ["Naming"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_TRAIN: Final = Path(__file__).with_name("train_digits.py")
_LAYERS: Final = 3


class Naming(Task[int, int]):
    """digits: the digit of a picture of 8 x 8 pixels. The pictures that trained the model calibrate it as well."""

    name = "digits"
    shapes = ((1, 1, 8, 8), (1, 1, 8, 8), (1, 1, 8, 8))
    calibration = 160
    trials = 899

    @override
    def model(self, folder: Path) -> Path:
        nodes = [helper.make_node("Flatten", ["x"], ["a0"], name="flatten")]
        for number in range(_LAYERS):
            reads, makes = [f"a{number}", f"weights{number}", f"bias{number}"], f"sums{number}"
            nodes.append(helper.make_node("Gemm", reads, [makes], name=f"layer{number}"))
            last = number == _LAYERS - 1
            nodes.append(
                helper.make_node("Softmax", [makes], ["probabilities"], name="softmax", axis=1)
                if last
                else helper.make_node("Relu", [makes], [f"a{number + 1}"], name=f"relu{number}")
            )
        graph = helper.make_graph(
            nodes,
            self.name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 10])],
            [
                numpy_helper.from_array(self._trained[name], name)
                for number in range(_LAYERS)
                for name in (f"weights{number}", f"bias{number}")
            ],
        )
        path = folder / f"{self.name}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        return path

    @override
    def samples(self, count: int, seed: str) -> Iterator[tuple[Float32Array, int]]:
        half = "trained" if seed == "calibration" else "judged"
        pictures, labels = self._trained[half], self._trained[f"{half}_labels"]
        for picture, label in zip(pictures[:count], labels[:count], strict=True):
            yield picture.reshape(1, 1, 8, 8), int(label)

    @override
    def answer(self, model: Model, tensor: Float32Array, truth: int) -> int:
        return int(np.argmax(model(tensor)[0]))

    @override
    def judge(self, answers: Sequence[int], reference: Sequence[int], truths: Sequence[int]) -> Shares:
        return {"same": count_equal(answers, reference), "right": count_equal(answers, truths)}

    @cached_property
    def _trained(self) -> dict[str, np.ndarray[Any, Any]]:
        """Weights, pictures and labels, by name."""
        environment = subprocess.check_output([_ROOT / "hack" / "venv", "digits"], text=True).strip()
        # The order of sums depends on the number of threads.
        one = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        written = subprocess.check_output([Path(environment) / "bin" / "python", _TRAIN], env=one)
        with np.load(io.BytesIO(written), allow_pickle=False) as archive:
            return dict(archive)
