"""A small MindSpore convolutional network (random weights) as ONNX with a dynamic batch.

Usage: python mindspore_export.py OUTPUT.onnx
Needs: mindspore, onnx (docs/exports/mindspore.md has the versions that were tried).
"""

import sys

import mindspore as ms
import numpy as np
from mindspore import nn


class Network(nn.Cell):
    """Two convolutions and a classifier: [batch, 3, 64, 64] FP32 to [batch, 10] FP32."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.SequentialCell(
            nn.Conv2d(3, 16, 3, stride=2, pad_mode="pad", padding=1, has_bias=True),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, pad_mode="pad", padding=1, has_bias=True),
            nn.ReLU(),
        )
        self.flatten = nn.Flatten()
        self.classifier = nn.Dense(32 * 16 * 16, 10)

    def construct(self, images: ms.Tensor) -> ms.Tensor:
        """Return logits."""
        return self.classifier(self.flatten(self.features(images)))


def main(output: str) -> None:
    """Export in graph mode; `dynamic_axes` opens the batch."""
    ms.set_seed(0)
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    network = Network()
    network.set_train(False)
    images = ms.Tensor(np.zeros((2, 3, 64, 64), np.float32))
    ms.onnx.export(
        network,
        images,
        file_name=output,
        input_names=["images"],
        output_names=["logits"],
        dynamic_axes={"images": {0: "batch"}},
    )


if __name__ == "__main__":
    main(sys.argv[1])
