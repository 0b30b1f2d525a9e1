"""A PaddlePaddle ResNet-18 (random weights) as ONNX with a dynamic batch.

Usage: python paddlepaddle_export.py OUTPUT.onnx
Needs: paddlepaddle, paddle2onnx, onnx (docs/exports/paddlepaddle.md has the versions that were tried).
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import paddle
import paddle2onnx


def main(output: str) -> None:
    """Export through an inference model on disk, as paddle2onnx reads nothing else."""
    paddle.seed(0)
    model = paddle.vision.models.resnet18(pretrained=False)
    model.eval()
    with TemporaryDirectory() as folder:
        prefix = str(Path(folder) / "inference")
        signature = [paddle.static.InputSpec([None, 3, 224, 224], "float32", name="images")]
        paddle.jit.save(model, prefix, input_spec=signature)
        graph = next(path for path in Path(folder).iterdir() if path.suffix in {".json", ".pdmodel"})
        paddle2onnx.export(str(graph), prefix + ".pdiparams", output, opset_version=17)


if __name__ == "__main__":
    main(sys.argv[1])
