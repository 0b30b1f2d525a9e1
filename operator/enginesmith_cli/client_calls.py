"""A program to paste that calls a model; it is made from the manifest, so it works without changes."""

from enginesmith_contract.manifest import Manifest
from enginesmith_contract.tensors import DType, TensorSpec

__all__ = ["python_call"]


def python_call(name: str, manifest: Manifest, address: str) -> tuple[str, ...]:
    """Return the lines of a Python program for the tritonclient package."""
    lines = [
        "import numpy as np, tritonclient.grpc as triton",
        f'client = triton.InferenceServerClient("{address}")',
        "inputs = []",
    ]
    for spec in manifest.inputs:
        shape = _opt(manifest, spec)
        lines.append(f'tensor = triton.InferInput("{spec.name}", {list(shape)}, "{spec.dtype}")')
        lines.append(f"inputs.append(tensor.set_data_from_numpy({_values(spec.dtype, shape)}))")
    lines.append(f'print(client.infer("{name}", inputs).as_numpy("{manifest.outputs[0].name}"))')
    return tuple(lines)


def _opt(manifest: Manifest, spec: TensorSpec) -> tuple[int, ...]:
    ranges = (profile.inputs.get(spec.name) for profile in manifest.profiles)
    return next((one.opt for one in ranges if one is not None), spec.shape)


def _values(dtype: DType, shape: tuple[int, ...]) -> str:
    if dtype is DType.BYTES:
        return f'np.full({shape}, b"text", np.object_)'
    return f"np.zeros({shape}, np.{dtype.numpy})"
