"""ResNet-50 as ONNX with random weights (He et al., "Deep Residual Learning", table 1): its arithmetic, not its skill.

No trained weights are needed to measure speed; a file of 100 MB need not travel. Batch normalisation is folded into the
convolutions, as an exporter leaves it.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["CLASSES", "write_resnet50"]

CLASSES: Final = 1000
_STAGES: Final = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
_EXPANSION: Final = 4
_OPSET: Final = 17
_BRANCH_GAIN: Final = 0.25
# Means and deviations of ImageNet's channels on a scale of 0 to 255, which every published ResNet-50 subtracts.
_MEAN: Final = (123.675, 116.28, 103.53)
_DEVIATION: Final = (58.395, 57.12, 57.375)


class _Graph:
    """Collects nodes and weights; every method returns the name of its output."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def weight(self, name: str, values: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def op(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 - of any type that ONNX has
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def convolution(
        self, name: str, source: str, shape: tuple[int, int, int], stride: int = 1, gain: float = 1.0
    ) -> str:
        """Add a convolution of `shape` (out, in, kernel), with variance that keeps the signal's size (He, 2015)."""
        out, channels, kernel = shape
        scale = gain * np.sqrt(2.0 / (channels * kernel * kernel))
        weight = self.weight(f"{name}.w", self._random.normal(0, scale, (out, channels, kernel, kernel)))
        bias = self.weight(f"{name}.b", self._random.normal(0, 0.01 * gain, out))
        pad = kernel // 2
        return self.op("Conv", name, source, weight, bias, strides=[stride] * 2, pads=[pad] * 4)

    def block(self, name: str, source: str, channels: tuple[int, int], stride: int) -> str:
        wide, inner = channels
        outer = inner * _EXPANSION
        one = self.op("Relu", f"{name}.r1", self.convolution(f"{name}.c1", source, (inner, wide, 1)))
        two = self.op("Relu", f"{name}.r2", self.convolution(f"{name}.c2", one, (inner, inner, 3), stride))
        # A residual branch at full size doubles the variance sixteen times over, beyond FP16's range.
        branch = self.convolution(f"{name}.c3", two, (outer, inner, 1), gain=_BRANCH_GAIN)
        skip = source
        if wide != outer:
            skip = self.convolution(f"{name}.skip", source, (outer, wide, 1), stride)
        return self.op("Relu", f"{name}.out", self.op("Add", f"{name}.sum", branch, skip))

    def linear(self, name: str, source: str, out: int, wide: int) -> str:
        weight = self.weight(f"{name}.w", self._random.normal(0, np.sqrt(1.0 / wide), (wide, out)))
        return self.op(
            "Add", name, self.op("MatMul", f"{name}.m", source, weight), self.weight(f"{name}.b", np.zeros(out))
        )


def write_resnet50(path: Path, *, seed: int = 0, uint8: bool = False) -> None:
    """Write the model.

    Args:
        path: of the ONNX file. Input `images`: [batch, 3, 224, 224] FP32, or [batch, 224, 224, 3] UINT8 with `uint8`;
            output `scores`: [batch, 1000] FP32.
        seed: of the weights; two seeds give one structure with other weights.
        uint8: put the normalisation of raw pixels into the graph.
    """
    graph = _Graph(seed)
    source = "images"
    if uint8:
        pixels = graph.op(
            "Transpose", "channels_first", graph.op("Cast", "pixels", source, to=TensorProto.FLOAT), perm=[0, 3, 1, 2]
        )
        mean = graph.weight("mean", np.array(_MEAN).reshape(1, 3, 1, 1))
        deviation = graph.weight("deviation", np.array(_DEVIATION).reshape(1, 3, 1, 1))
        source = graph.op("Div", "normalised", graph.op("Sub", "centred", pixels, mean), deviation)
    x = graph.op("Relu", "stem.r", graph.convolution("stem", source, (64, 3, 7), 2))
    x = graph.op("MaxPool", "stem.pool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    wide = 64
    for stage, (inner, blocks, stride) in enumerate(_STAGES):
        for block in range(blocks):
            x = graph.block(f"s{stage}.{block}", x, (wide, inner), stride if block == 0 else 1)
            wide = inner * _EXPANSION
    x = graph.op("Flatten", "features", graph.op("GlobalAveragePool", "pool", x))
    graph.op("Identity", "scores", graph.linear("fc", x, CLASSES, wide))
    shape: list[str | int] = ["batch", 224, 224, 3] if uint8 else ["batch", 3, 224, 224]
    dtype = TensorProto.UINT8 if uint8 else TensorProto.FLOAT
    proto = helper.make_graph(
        graph.nodes,
        "resnet50",
        [helper.make_tensor_value_info("images", dtype, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        graph.weights,
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
