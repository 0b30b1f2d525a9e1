"""What is served: the models, a request for each, and what bare ONNX Runtime answers."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.protos import inference_pb2 as pb

__all__ = ["MODELS", "Model", "Place", "open_session"]

_ROOT = Path(__file__).resolve().parent.parent.parent
_OPSET = 17
_IR_VERSION = 8


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the tensors of one request lie in shared memory.

    Attributes:
        region: the region's name for the server.
        offset: of the input, in bytes; the output follows it.
    """

    region: str
    offset: int


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model with one FP32 input and one FP32 output.

    Attributes:
        layers: of a perceptron with `shape[-1]` floats; 0: an identity; None: a model of PP-OCRv4.
        largest: the largest shape of the profile, for documents.
    """

    name: str
    shape: tuple[int, ...]
    largest: tuple[int, ...]
    layers: int | None = None

    def file(self, folder: Path) -> Path:
        """Return the ONNX file, written or fetched once."""
        path = folder / f"{self.name}.onnx"
        if self.layers is None:
            models = subprocess.check_output([_ROOT / "hack" / "fetch-models"], text=True).strip()
            return Path(models) / f"{self.name}.onnx"
        if not path.exists():
            onnx.save(_perceptron(self.shape[-1], self.layers) if self.layers else _identity(self.shape), path)
        return path

    def values(self) -> npt.NDArray[np.float32]:
        """Return the request's tensor."""
        return np.random.default_rng(0).random(self.shape, np.float32)

    def expected(self, file: Path) -> tuple[str, str, npt.NDArray[np.float32]]:
        """Return the input's name, the output's, and bare ONNX Runtime's answer."""
        session = open_session(file)
        name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
        return name, output, session.run([output], {name: self.values()})[0]

    def request(self, names: tuple[str, str], place: Place | None, sizes: tuple[int, int]) -> bytes:
        """Return a serialised ModelInferRequest.

        Args:
            names: of the input and of the output.
            place: in shared memory; None: the tensors travel in the messages.
            sizes: of the input and of the output, in bytes.
        """
        message = pb.ModelInferRequest(model_name=self.name)
        tensor = message.inputs.add(name=names[0], datatype="FP32", shape=self.shape)
        if place is None:
            message.raw_input_contents.append(self.values().tobytes())
            return message.SerializeToString()
        output = message.outputs.add(name=names[1])
        offset = place.offset
        for parameters, size in zip((tensor.parameters, output.parameters), sizes, strict=True):
            parameters["shared_memory_region"].string_param = place.region
            parameters["shared_memory_byte_size"].int64_param = size
            parameters["shared_memory_offset"].int64_param = offset
            offset += size
        return message.SerializeToString()


MODELS = {
    model.name: model
    for model in (
        Model(name="mlp", shape=(1, 16), largest=(64, 16), layers=2),
        Model(name="bigmlp", shape=(1, 2048), largest=(64, 2048), layers=4),
        Model(name="tensor", shape=(1, 3, 640, 640), largest=(1, 3, 640, 640), layers=0),
        Model(name="cls", shape=(1, 3, 48, 192), largest=(4, 3, 48, 192)),
        Model(name="rec", shape=(1, 3, 48, 480), largest=(1, 3, 48, 480)),
        Model(name="det", shape=(1, 3, 640, 960), largest=(1, 3, 640, 960)),
    )
}


def open_session(file: Path | str) -> onnxruntime.InferenceSession:
    """Return a session as every Python peer opens it: one thread, nothing else changed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _save_shape(shape: tuple[int, ...]) -> list[int | str]:
    return ["N", *shape[1:]]


def _identity(shape: tuple[int, ...]) -> onnx.ModelProto:
    return _model([helper.make_node("Identity", ["x"], ["y"])], shape, [])


def _perceptron(width: int, layers: int) -> onnx.ModelProto:
    random = np.random.default_rng(1)
    nodes, weights, name = [], [], "x"
    for layer in range(layers):
        matrix = (random.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32)
        weights += [
            numpy_helper.from_array(matrix, f"w{layer}"),
            numpy_helper.from_array(random.standard_normal(width).astype(np.float32), f"b{layer}"),
        ]
        following = "y" if layer == layers - 1 else f"h{layer}"
        nodes.append(helper.make_node("Gemm", [name, f"w{layer}", f"b{layer}"], [f"g{layer}"]))
        nodes.append(helper.make_node("Relu", [f"g{layer}"], [following]))
        name = following
    return _model(nodes, (1, width), weights)


def _model(nodes: list[onnx.NodeProto], shape: tuple[int, ...], weights: list[onnx.TensorProto]) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, _save_shape(shape)) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "model", [ends[0]], [ends[1]], weights)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="benchmarks"
    )
