"""Every rule of the version matrix, in the order in which messages report them.

A rule is a pure function of the matrix and one query. It answers for every backend: if it has nothing to check, it
answers YES with the reason. UNKNOWN does not refuse.
"""

from collections.abc import Callable, Iterable
from typing import Final

from enginesmith_contract.matrix.device_rules import (
    compute_capability_supported,
    driver_floor_reached,
    platform_supported,
    precision_supported,
    rtx_target_supported,
)
from enginesmith_contract.matrix.model import Matrix
from enginesmith_contract.matrix.option_rules import hardware_compatibility_allowed, version_compatible_allowed
from enginesmith_contract.matrix.query import MatrixQuery
from enginesmith_contract.matrix.toolchain_rules import builder_supported, cuda_build_exists, tensorrt_known
from enginesmith_contract.verdicts import RuleAnswer, Verdict

__all__ = ["RULES", "MatrixQuery", "Rule", "check_all", "refusals"]

Rule = Callable[[Matrix, MatrixQuery], RuleAnswer]

RULES: Final[tuple[Rule, ...]] = (
    tensorrt_known,  # does the matrix have a row
    builder_supported,  # does Enginesmith build with it
    cuda_build_exists,  # was it published for this CUDA
    platform_supported,  # was it published for this CPU
    driver_floor_reached,  # does the node's driver support it
    compute_capability_supported,  # does it have code for this GPU
    rtx_target_supported,  # the same for TensorRT for RTX
    precision_supported,  # does the GPU have the arithmetic
    hardware_compatibility_allowed,  # does this build support the options
    version_compatible_allowed,
)


def check_all(matrix: Matrix, query: MatrixQuery) -> tuple[RuleAnswer, ...]:
    """Return the answer of every rule, in order."""
    return tuple(rule(matrix, query) for rule in RULES)


def refusals(answers: Iterable[RuleAnswer]) -> tuple[RuleAnswer, ...]:
    """Return the answers that say no."""
    return tuple(answer for answer in answers if answer.verdict is Verdict.NO)
