"""The question that every rule answers, and the look-ups that several rules share."""

from typing import NamedTuple

from enginesmith_contract.backends import Hardware, Precision, Toolchain
from enginesmith_contract.matrix.model import GpuProduct, Matrix, Release
from enginesmith_contract.matrix.versions import is_in_line, version_numbers
from enginesmith_contract.products import canonical_product
from enginesmith_contract.record import Record
from enginesmith_contract.verdicts import RuleAnswer, Verdict

__all__ = [
    "CudaBuild",
    "MatrixQuery",
    "capability_of",
    "does_not_apply",
    "find_product",
    "find_release",
    "has_unified_memory",
    "is_jetson",
]


class MatrixQuery(Record):
    """One combination to judge.

    Attributes:
        hardware: Hardware that the engine is for. A field that is None is not known; rules that need it answer UNKNOWN.
        hardware_compatibility: "none", "ampere-plus" or "same-compute-capability"; see BuildOptions.
        version_compatible: Whether newer TensorRT versions must load the engine; see BuildOptions.
    """

    toolchain: Toolchain
    hardware: Hardware = Hardware()
    precision: Precision = Precision.FP32
    hardware_compatibility: str = "none"
    version_compatible: bool = False


class CudaBuild(NamedTuple):
    """A TensorRT release built for one CUDA version; `version` is the full version if it is known, else the line."""

    release: Release
    version: str
    cuda: str


def find_release(matrix: Matrix, version: str) -> Release | None:
    """Return the row of a full TensorRT version, or None if there is none."""
    numbers = version_numbers(version)
    if numbers is None:
        return None
    fitting = [release for release in matrix.releases if is_in_line(numbers, release.line)]
    return max(fitting, key=lambda release: release.line.count("."), default=None)


def find_product(matrix: Matrix, product: str | None) -> GpuProduct | None:
    """Return the row of a GPU product in any spelling of GPU Feature Discovery, or None if there is none."""
    if product is None:
        return None
    wanted = canonical_product(product)
    return next((row for row in matrix.gpus if row.product == wanted), None)


def capability_of(matrix: Matrix, hardware: Hardware) -> str | None:
    """Return the compute capability that the hardware reports, else that of its product, else None."""
    if hardware.compute_capability is not None:
        return hardware.compute_capability
    row = find_product(matrix, hardware.product)
    return row.capability if row else None


def is_jetson(matrix: Matrix, hardware: Hardware) -> bool:
    """Whether the hardware is known to be a Jetson module."""
    row = find_product(matrix, hardware.product)
    return (row is not None and row.integrated) or capability_of(matrix, hardware) in matrix.jetson_capabilities


def has_unified_memory(matrix: Matrix, hardware: Hardware) -> bool:
    """Whether the device is known to use the memory of the host, as Jetson modules and GB10 do."""
    row = find_product(matrix, hardware.product)
    return (row is not None and row.unified_memory) or is_jetson(matrix, hardware)


def does_not_apply(rule: str, why: str) -> RuleAnswer:
    """Return the answer YES for a rule that has nothing to check."""
    return RuleAnswer(rule=rule, verdict=Verdict.YES, found=f"does not apply: {why}")
