"""Weights in weights files, in the form that every reader takes.

ONNX Runtime and ONNX's shape inference read the values of shapes, axes and sizes while they load a model, and neither
reads them from another file ("Cannot parse data from external tensors"). A weight's length is optional in ONNX, and
TensorRT's parser takes the rest of the file where it is left out.
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
"""Of one weight: exporters keep these in the ONNX file by default, and no shape has more."""


def make_weights_readable(
    model: onnx.ModelProto, path: Path, folder: Path, *, changed: bool = False
) -> tuple[str, ...]:
    """Move small weights into the ONNX file and give the others their lengths.

    Args:
        model: as read from `path`; changed in place.
        path: of the ONNX file; its weights files exist.
        folder: an empty folder, for the changed model and the weights files that it still needs.
        changed: whether `model` is to be written because it differs from the file at `path` already.

    Returns:
        The written files relative to `folder`, the ONNX file first; empty where there was nothing to change.
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
    # Copies, since onnx refuses weights files that are links.
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
