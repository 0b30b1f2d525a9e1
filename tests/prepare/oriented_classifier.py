"""A small convolutional classifier of stripes by their direction, its samples, and INT8 versions of it.

Filters are stripes themselves and random ones, with a residual Add; the last layer is fitted to labelled samples, so
that it answers right where its features arrive, and wrong where they do not.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

CLASSES: Final = 8
SIZE: Final = 20
OPERATORS: Final = ["Conv", "Gemm"]
BROKEN: Final = ("zeros", "shuffled", "tooWide", "oneTensor")
"""Ranges of zero; scales of other tensors; 100 times too wide; one tensor with a range 100 times too narrow."""
WRONG_TENSOR: Final = "features_b"

Ranges = dict[str, float]


def stripes(number: int) -> tuple[np.ndarray, int]:
    """Return an image [1, 1, 20, 20] of stripes with noise, and the class of their direction."""
    random = np.random.default_rng(number)
    label = number % CLASSES
    angle = np.pi * (label + random.uniform(-0.2, 0.2)) / CLASSES
    y, x = np.mgrid[:SIZE, :SIZE]
    waves = np.sin((np.cos(angle) * x + np.sin(angle) * y) * random.uniform(0.9, 1.3) + random.uniform(0, 6))
    image = waves * random.uniform(0.5, 1.0) + random.normal(0, 0.15, (SIZE, SIZE))
    return image.astype(np.float32)[None, None], label


def samples(first: int, count: int) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield names and inputs."""
    for number in range(first, first + count):
        yield f"stripes-{number}", {"image": stripes(number)[0]}


def write_classifier(path: Path) -> Path:
    """Write the FP32 model: scores [n, 8] of images [n, 1, 20, 20]."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[-3:4, -3:4]
    filters = [
        np.cos((np.cos(angle) * x + np.sin(angle) * y) * 1.1) * np.exp(-(x**2 + y**2) / 8)
        for angle in np.pi * np.arange(2 * CLASSES) / (2 * CLASSES)
    ]
    weights = {
        "stripe_filters": np.stack(filters)[:, None] - np.mean(filters, axis=(1, 2))[:, None, None, None],
        "filters_b": random.normal(0, 0.12, (16, 16, 3, 3)) + 0.5 * np.eye(16)[:, :, None, None] / 9,
        "filters_c": random.normal(0, 0.12, (16, 16, 3, 3)),
        "head": np.zeros((32, CLASSES)),
        "head_bias": np.zeros(CLASSES),
    }
    model = _model(weights)
    features = _run(model, "both", (stripes(number)[0] for number in range(1000, 1480)))
    targets = 12 * np.eye(CLASSES)[[stripes(number)[1] for number in range(1000, 1480)]] - 6
    known = np.hstack([features, np.ones((len(features), 1))])
    fitted = np.linalg.solve(known.T @ known + 0.01 * np.eye(known.shape[1]), known.T @ targets)
    onnx.save(_model(weights | {"head": fitted[:-1], "head_bias": fitted[-1]}), path)
    return path


def learn_ranges(path: Path) -> Ranges:
    """Return the largest absolute value of each tensor that weighted nodes read, over calibration samples."""
    model = onnx.load(path)
    names = [node.input[0] for node in model.graph.node if node.op_type in OPERATORS]
    return {
        name: max(float(np.abs(_run(model, name, [inputs["image"]])).max()) for _, inputs in samples(2000, 24))
        for name in names
    }


def break_ranges(how: str, ranges: Ranges) -> Ranges:
    """Return the ranges of one of the broken calibrations."""
    names = list(ranges)
    broken: Mapping[str, Callable[[], Ranges]] = {
        "zeros": lambda: dict.fromkeys(names, 1e-9),
        "shuffled": lambda: dict(zip(names, [ranges[name] for name in (*names[2:], *names[:2])], strict=True)),
        "tooWide": lambda: {name: 100 * value for name, value in ranges.items()},
        "oneTensor": lambda: ranges | {WRONG_TENSOR: ranges[WRONG_TENSOR] / 100},
    }
    return broken[how]()


def quantise(path: Path, ranges: Ranges, output: Path) -> Path:
    """Write the model with QuantizeLinear and DequantizeLinear in front of its weighted nodes, as TensorRT wants."""
    table = TensorsData(
        CalibrationMethod.MinMax, {name: (np.float32(-value), np.float32(value)) for name, value in ranges.items()}
    )
    model = onnx.load(path)
    options = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": OPERATORS,
    }
    nodes = [node.name for node in model.graph.node if node.op_type in OPERATORS]
    quantizer = QDQQuantizer(model, True, False, QuantType.QInt8, QuantType.QInt8, table, nodes, [], OPERATORS, options)
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    onnx.save(quantizer.model.model, output)
    return output


def _model(weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["image", "stripe_filters"], ["waves"], name="stripe_conv", pads=[3, 3, 3, 3]),
        helper.make_node("Relu", ["waves"], ["features_a"], name="relu_a"),
        helper.make_node("Conv", ["features_a", "filters_b"], ["mixed"], name="conv_b", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["mixed"], ["features_b"], name="relu_b"),
        helper.make_node("Conv", ["features_b", "filters_c"], ["mixed_again"], name="conv_c", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["mixed_again", "features_b"], ["summed"], name="residual"),
        helper.make_node("Relu", ["summed"], ["features_c"], name="relu_c"),
        helper.make_node("GlobalAveragePool", ["features_a"], ["early"], name="pool_a"),
        helper.make_node("GlobalAveragePool", ["features_c"], ["late"], name="pool_c"),
        helper.make_node("Concat", ["early", "late"], ["pooled"], name="concat", axis=1),
        helper.make_node("Flatten", ["pooled"], ["both"], name="flatten"),
        helper.make_node("Gemm", ["both", "head", "head_bias"], ["scores"], name="head_gemm"),
        helper.make_node("Softmax", ["scores"], ["probabilities"], name="softmax", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "stripes",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, SIZE, SIZE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _run(model: onnx.ModelProto, name: str, images: "Iterator[np.ndarray] | list[np.ndarray]") -> np.ndarray:
    """Return one value of the model for each image, along the first axis."""
    if name == "image":
        return np.concatenate(list(images))
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(onnx.ValueInfoProto(name=name))
    session = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image})[0] for image in images])
