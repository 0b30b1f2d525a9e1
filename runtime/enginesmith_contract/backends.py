"""The backends, the precisions and the hardware that a request can name."""

from enum import StrEnum

from enginesmith_contract.calibration import AutoKeep, Calibration
from enginesmith_contract.record import Record

__all__ = ["Backend", "Hardware", "Precision", "PrecisionPolicy", "Toolchain"]


class Backend(StrEnum):
    """Library that turns a prepared model into an engine and runs it."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"
    ONNXRUNTIME = "onnxruntime"


class Precision(StrEnum):
    """Numeric precision of a layer. Networks are strongly typed, so the prepared graph holds it."""

    FP32 = "fp32"
    TF32 = "tf32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"


class PrecisionPolicy(Record):
    """Precision of a model, and the nodes that must keep a higher one.

    Attributes:
        default: Precision of every layer that `keep` and `auto_keep` do not exclude.
        keep: Node names or operator types that keep a higher precision: FP32 with fp16 and bf16, and FP16 with int8 and
            fp8 (FP32 for ONNX Runtime). Shell patterns are allowed. `from:TENSOR` is every node between a tensor and
            the outputs. Each entry must match a node.
        auto_keep: With fp16: whether nodes whose values are all below 6.1e-5 in a reference run also stay in FP32. With
            int8 and fp8: whether nodes to keep are searched, and within which bounds.
        calibration: Calibration data and how it is used. Required for int8 and fp8.
    """

    default: Precision = Precision.FP32
    keep: tuple[str, ...] = ()
    auto_keep: bool | AutoKeep = False
    calibration: Calibration | None = None

    @property
    def quantises(self) -> bool:
        """Whether ranges of tensors are needed, which calibration data gives."""
        return self.default in {Precision.INT8, Precision.FP8}

    @property
    def unused_keep_fields(self) -> tuple[str, ...]:
        """Return the fields of the spec that could keep more nodes in a higher precision; none with FP32 and TF32.

        `precision.autoKeep` is one only where it has an effect and is not set.
        """
        if self.default in {Precision.FP32, Precision.TF32}:
            return ()
        searches = self.default is not Precision.BF16 and self.auto_keep is False
        return ("precision.keep", "precision.autoKeep") if searches else ("precision.keep",)


class Hardware(Record):
    """Kind of device that an engine is built for, or that a runtime finds itself on.

    Attributes:
        product: GPU product as GPU Feature Discovery spells it, without sharing and MIG suffix. If None, there is no
            GPU.
        mig_profile: MIG profile of the slice, such as "1g.10gb"; None for a whole GPU.
        compute_capability: CUDA compute capability, such as "8.9".
        memory_mib: Device memory in MiB, as GPU Feature Discovery or NVML reports it.
        multiprocessors: Number of streaming multiprocessors (SMs). An engine built with more SMs does not run on fewer.
        driver: Version of the NVIDIA driver, such as "580.159.04".
        arch: CPU architecture as Kubernetes spells it, such as "amd64" or "arm64".
        os: Operating system, such as "linux".
    """

    product: str | None = None
    mig_profile: str | None = None
    compute_capability: str | None = None
    memory_mib: int | None = None
    multiprocessors: int | None = None
    driver: str | None = None
    arch: str = "amd64"
    os: str = "linux"


class Toolchain(Record):
    """One fixed set of versions that builds and serves engines.

    Attributes:
        name: Key in the toolchain catalog, or the name of the Python wheel in local mode.
        backend: Library that builds and runs engines.
        version: Full version of the backend's library, such as "10.13.3.9", "1.7.1.116" or "1.32.0".
        cuda: CUDA version that the library is built for, such as "12.9"; None if it does not use CUDA.
        provider: ONNX Runtime execution provider, such as "cpu" or "openvino"; None for the other backends.
        image: Runtime image, pinned by digest; None in local mode.
    """

    name: str
    backend: Backend
    version: str
    cuda: str | None = None
    provider: str | None = None
    image: str | None = None
