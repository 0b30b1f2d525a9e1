"""The backends, the precisions and the hardware that a request can name."""

from enum import StrEnum

from enginesmith_contract.record import Record

__all__ = ["Backend", "Hardware", "Precision", "PrecisionPolicy", "Toolchain"]


class Backend(StrEnum):
    """What turns a prepared model into an engine and runs it."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"
    ONNXRUNTIME = "onnxruntime"


class Precision(StrEnum):
    """The arithmetic of a layer. Networks are strongly typed, so it lives in the prepared graph."""

    FP32 = "fp32"
    TF32 = "tf32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"


class PrecisionPolicy(Record):
    """Which precision a model gets, and what must keep a higher one.

    Attributes:
        default: the precision of every layer that nothing else names.
        keep: node names or operator types that stay in FP32; shell patterns are allowed, and each has to match a node.
        auto_keep: whether nodes whose values are all below 6.1e-5 in a reference run stay in FP32 as well.
        calibration: URI of calibration data (.npz); int8 and fp8 need it.
    """

    default: Precision = Precision.FP32
    keep: tuple[str, ...] = ()
    auto_keep: bool = False
    calibration: str | None = None


class Hardware(Record):
    """One kind of device as an engine is bound to it, or as a runtime finds itself on it.

    Attributes:
        product: GPU Feature Discovery's spelling of the model, without sharing and MIG suffix; None: no GPU.
        mig_profile: "1g.10gb" where the device is a slice.
        compute_capability: "8.9".
        memory_mib: as GPU Feature Discovery or NVML reports it.
        multiprocessors: SM count; a plan built on more does not run on fewer.
        driver: "580.159.04".
        arch: as Kubernetes spells it ("amd64", "arm64").
        os: "linux".
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
    """One frozen set of versions that builds and serves.

    Attributes:
        name: the catalog's key, or the wheel's name in local mode.
        backend: what it builds and runs.
        version: of the backend's library, in full ("10.13.3.9", "1.7.1.116", "1.32.0").
        cuda: CUDA build of the library ("12.9"); None where there is none.
        provider: ONNX Runtime execution provider ("cpu", "openvino").
        image: runtime image by digest; None in local mode.
    """

    name: str
    backend: Backend
    version: str
    cuda: str | None = None
    provider: str | None = None
    image: str | None = None
