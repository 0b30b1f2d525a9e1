"""Writes external weights in a form that every reader supports.

ONNX Runtime and ONNX's shape inference read the values of shapes, axes and sizes while they load a model, and neither
reads them from another file ("Cannot parse data from external tensors"). The length of a weight is optional in ONNX,
and TensorRT's parser uses the rest of the file if it is missing.
"""

import shutil
from pathlib import Path
from typing import Final

import onnx
from onnx.external_data_helper import ExternalDataInfo

from enginesmith_runtime.fetch.external_data import tensor_bytes
from enginesmith_runtime.onnx_graphs.graph import all_tensors, external_location

__all__ = ["make_weights_readable"]

_MOST_BYTES: Final = 1024
"""Largest size of one weight to move. Exporters keep these in the ONNX file by default, and shapes are smaller."""


def make_weights_readable(
    model: onnx.ModelProto, path: Path, folder: Path, *, changed: bool = False
) -> tuple[str, ...]:
    """Move small weights into the ONNX file and give the others their lengths.

    Args:
        model: Model that was read from `path`. It is changed in place.
        path: Path of the ONNX file. Its weights files must exist.
        folder: Empty folder for the changed model and the weights files that it still needs.
        changed: Whether `model` already differs from the file at `path` and must be written.

    Returns:
        The written files relative to `folder`, the ONNX file first, or nothing if nothing changed.
    """
    outside = [tensor for tensor in all_tensors(model) if external_location(tensor) is not None]
    small = [tensor for tensor in outside if tensor_bytes(tensor) <= _MOST_BYTES]
    left = [tensor for tensor in outside if tensor_bytes(tensor) > _MOST_BYTES]
    without_length = [tensor for tensor in left if ExternalDataInfo(tensor).length is None]
    if not small and not without_length and not changed:
        return ()
    for tensor in small:
        tensor.raw_data = _read(tensor, path.parent)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    for tensor in without_length:
        entry = tensor.external_data.add()
        entry.key, entry.value = "length", str(tensor_bytes(tensor))
    names = sorted({str(external_location(tensor)) for tensor in left})
    # Create copies, because onnx refuses weights files that are links.
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.parent / name, folder / name)
    (folder / path.name).write_bytes(model.SerializeToString())
    return (path.name, *names)


def _read(tensor: onnx.TensorProto, folder: Path) -> bytes:
    info = ExternalDataInfo(tensor)
    with (folder / info.location).open("rb") as file:
        file.seek(info.offset or 0)
        return file.read(tensor_bytes(tensor))
