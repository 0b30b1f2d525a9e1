"""Every rule of the version matrix, in the order in which a person wants to hear of them.

A rule is a pure function of the matrix and one query. It answers for every backend: where it has nothing to check it
says yes and why. UNKNOWN refuses nothing.
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
    tensorrt_known,  # is there a row at all
    builder_supported,  # can the product build with it
    cuda_build_exists,  # was it published for this CUDA
    platform_supported,  # and for this CPU
    driver_floor_reached,  # does the node's driver start it
    compute_capability_supported,  # has it code for this GPU
    rtx_target_supported,  # the same for TensorRT for RTX
    precision_supported,  # has the GPU the arithmetic
    hardware_compatibility_allowed,  # are the build options possible there
    version_compatible_allowed,
)


def check_all(matrix: Matrix, query: MatrixQuery) -> tuple[RuleAnswer, ...]:
    """Return the answer of every rule, in order."""
    return tuple(rule(matrix, query) for rule in RULES)


def refusals(answers: Iterable[RuleAnswer]) -> tuple[RuleAnswer, ...]:
    """Return the answers that say no."""
    return tuple(answer for answer in answers if answer.verdict is Verdict.NO)
