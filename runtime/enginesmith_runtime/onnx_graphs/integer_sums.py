"""Exact results of ONNX Runtime's INT8 kernels on x86 CPUs without VNNI.

Such a CPU multiplies UINT8 by INT8 and adds two products in 16 bits, so that large sums are cut off at 32,767. With
`session.x64quantprecision` ONNX Runtime turns INT8 weights into UINT8 and uses kernels that add in 32 bits. Its
optimizer does so from the extended level on. The option changes nothing on a CPU with VNNI.
Source: `kOrtSessionOptionsAvx2PrecisionMode` in onnxruntime_session_options_config_keys.h.

A server imports this module, so it does not import onnx.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["add_in_32_bits"]

_OPTION: Final = "session.x64quantprecision"


def add_in_32_bits(options: "ort.SessionOptions") -> None:
    """Make INT8 kernels add in 32 bits on every CPU."""
    options.add_session_config_entry(_OPTION, "1")
