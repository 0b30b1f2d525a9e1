"""A torchvision ResNet-18 (random weights) as ONNX with a dynamic batch.

Usage: python pytorch_export.py OUTPUT.onnx
Needs: torch, torchvision, onnx, onnxscript (docs/exports/pytorch.md has the versions that were tried).
"""

import sys

import torch
import torchvision


def main(output: str) -> None:
    """Export the model in evaluation mode, so that dropout and batch statistics are frozen."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    batch = torch.export.Dim("batch", min=1, max=32)
    torch.onnx.export(
        model,
        (torch.randn(2, 3, 224, 224),),
        output,
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"x": {0: batch}},
        external_data=False,
    )


if __name__ == "__main__":
    main(sys.argv[1])
