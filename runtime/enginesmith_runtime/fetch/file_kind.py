"""Recognises files that are not ONNX models by their first bytes."""

import zipfile
from pathlib import Path
from typing import Final

from enginesmith_contract.errors import ModelError

__all__ = ["check_not_foreign", "not_onnx"]

_HEAD_BYTES: Final = 64 << 10

_EXPORT_TORCH: Final = "export it with torch.onnx.export"
_EXPORT_TENSORFLOW: Final = "convert it with tf2onnx"
_EXPORT_PADDLE: Final = "convert it with paddle2onnx"
_NO_FILE: Final = "check that the address gives the file itself, and whether it needs a login"

# First bytes that no ONNX file has, the kind of file, and the remedy. The first match applies.
_BEGINNINGS: Final = (
    (b"version https://git-lfs", "it is a Git LFS pointer, not the file", "run git lfs pull and try again"),
    (b"\x89HDF", "it is an HDF5 file, as Keras writes", _EXPORT_TENSORFLOW),
    (b"\x1f\x8b", "it is a gzip archive", "unpack it and name the .onnx file inside"),
    (b"GGUF", "it is a GGUF model", "export the original model to ONNX"),
    (b"ptrt", "it is a TensorRT engine", "use the ONNX model that it was built from"),
    (b"ftrt", "it is a TensorRT engine", "use the ONNX model that it was built from"),
    (b"\x80\x02", "it is a Python pickle, as torch.save writes", _EXPORT_TORCH),
    (b"\x80\x03", "it is a Python pickle", _EXPORT_TORCH),
    (b"\x80\x04", "it is a Python pickle", _EXPORT_TORCH),
    (b"<?xml", "it is an XML document, such as an error of an object store", _NO_FILE),
    (b"\x93NUMPY", "it is a NumPy array", "use the model"),
)
# FlatBuffers have a length before their file identifier.
_AFTER_FOUR_BYTES: Final = (
    (b"TFL3", "it is a TensorFlow Lite model", _EXPORT_TENSORFLOW),
    (b"ORTM", "it is an ONNX Runtime format model (.ort)", "use the ONNX model that it was made from"),
)
# Texts in lower case, compared after leading white space.
_TEXTS: Final = (
    (b"<!doctype html", "it is an HTML page, such as a login or an error page", _NO_FILE),
    (b"<html", "it is an HTML page, such as a login or an error page", _NO_FILE),
    (b"{", "it is a JSON document, such as an error message or a PaddlePaddle program", _NO_FILE),
)
# Members of a ZIP archive that identify its format.
_MEMBERS: Final = (
    ("constants.pkl", "it is a TorchScript archive", _EXPORT_TORCH),
    ("data.pkl", "it is a PyTorch checkpoint", _EXPORT_TORCH),
    ("models/", "it is a PyTorch export archive (.pt2)", _EXPORT_TORCH),
    ("saved_model.pb", "it is a zipped TensorFlow SavedModel", _EXPORT_TENSORFLOW),
    ("model.weights.h5", "it is a Keras archive", _EXPORT_TENSORFLOW),
    (".onnx", "it is a ZIP archive with an ONNX file inside", "unpack it and name the .onnx file"),
)


def check_not_foreign(path: Path, where: str) -> None:
    """Refuse a file that has the first bytes of another format, before anything parses it.

    Raises:
        enginesmith_contract.errors.ModelError: `NotOnnx`.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    found = _foreign(path, head)
    if found is not None:
        raise _refusal(where, *found)


def not_onnx(path: Path, where: str, why: str = "") -> ModelError:
    """Return the error of a file that does not parse as ONNX, with what it looks like."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if why:
        return _refusal(where, why, "export the model again, or copy it again")
    found = _foreign(path, head) or _foreign_protobuf(path, head)
    if found is not None:
        return _refusal(where, *found)
    # An ONNX file starts with its ir_version: field 1, a small number.
    if head[:1] == b"\x08":
        return _refusal(where, "it begins as one and breaks off, or is damaged", "copy or export the model again")
    return _refusal(where, f"it begins with {head[:8].hex(' ')}", "give a file that torch.onnx or onnx.save wrote")


def _refusal(where: str, why: str, remedy: str) -> ModelError:
    return ModelError("the file is not an ONNX model", where=where, why=why, remedy=remedy, reason="NotOnnx")


def _foreign(path: Path, head: bytes) -> tuple[str, str] | None:
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    text = head.lstrip()[:64].lower()
    for bytes_there, beginning, why, remedy in (
        *((head, *row) for row in _BEGINNINGS),
        *((head[4:], *row) for row in _AFTER_FOUR_BYTES),
        *((text, *row) for row in _TEXTS),
    ):
        if bytes_there.startswith(beginning):
            return why, remedy
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "it is a safetensors file", "export the model, not its weights, to ONNX"
    return None if head else ("it is empty", "copy or export the model again")


def _zip_kind(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        names = []
    for member, why, remedy in _MEMBERS:
        if any(member in name for name in names):
            return why, remedy
    return "it is a ZIP archive", "unpack it and name the .onnx file inside"


def _foreign_protobuf(path: Path, head: bytes) -> tuple[str, str] | None:
    # Protobuf has no magic number. These are the first fields of two other common formats.
    if path.suffix == ".pdmodel" or (head[:1] == b"\x0a" and b"feed" in head and b"fetch" in head):
        return "it is a PaddlePaddle program (.pdmodel)", _EXPORT_PADDLE
    if path.suffix == ".pdiparams":
        return "it is a file of PaddlePaddle weights (.pdiparams)", _EXPORT_PADDLE
    if path.name == "saved_model.pb" or (head.startswith(b"\x08\x01\x12") and b"serve" in head):
        return "it is a TensorFlow SavedModel", _EXPORT_TENSORFLOW
    return None
