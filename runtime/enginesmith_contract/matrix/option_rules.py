"""Rules about build options that widen where an engine runs."""

from enginesmith_contract.backend_traits import MatrixPart, traits
from enginesmith_contract.matrix.model import CompatibilityLevel, Matrix
from enginesmith_contract.matrix.query import MatrixQuery, capability_of, does_not_apply, is_jetson
from enginesmith_contract.matrix.versions import is_at_least, version_numbers
from enginesmith_contract.verdicts import RuleAnswer, Verdict

__all__ = ["hardware_compatibility_allowed", "version_compatible_allowed"]


def hardware_compatibility_allowed(matrix: Matrix, query: MatrixQuery) -> RuleAnswer:
    """Whether this TensorRT on this device can build with the requested `hardwareCompatibility`."""
    rule, asked = "HardwareCompatibilityAllowed", query.hardware_compatibility
    levels = {level.name: level for level in matrix.portability.levels}
    if asked not in levels:
        found = f"hardwareCompatibility {asked!r} does not exist"
        return RuleAnswer(rule=rule, verdict=Verdict.NO, found=found, wanted=f"one of {', '.join(levels)}")
    if asked == "none":
        return RuleAnswer(rule=rule, verdict=Verdict.YES, found="the engine is for one GPU model")
    if traits(query.toolchain.backend).matrix is not MatrixPart.RELEASES:
        return does_not_apply(rule, f"the {query.toolchain.backend} backend ignores hardwareCompatibility")
    return _judge_level(matrix, query, levels[asked])


def version_compatible_allowed(matrix: Matrix, query: MatrixQuery) -> RuleAnswer:
    """Whether this library can build engines that a newer one loads."""
    rule, compatible = "VersionCompatibleAllowed", matrix.portability.version_compatible
    if not query.version_compatible:
        return RuleAnswer(rule=rule, verdict=Verdict.YES, found="the engine is for one exact version")
    row = traits(query.toolchain.backend)
    if row.matrix is None:
        return does_not_apply(rule, f"{row.title} loads models of any older version")
    sources = compatible.sources
    if row.matrix is MatrixPart.RTX:
        found = "TensorRT for RTX builds no version-compatible engine: its lean runtime is not published"
        sources = matrix.tensorrt_rtx.sources
        return RuleAnswer(
            rule=rule, verdict=Verdict.NO, found=found, wanted="versionCompatible: false", sources=sources
        )
    name = f"TensorRT {query.toolchain.version}"
    numbers = version_numbers(query.toolchain.version)
    if numbers is None:
        return RuleAnswer(rule=rule, verdict=Verdict.UNKNOWN, found=f"{name} is no version", sources=sources)
    if is_at_least(numbers, version_numbers(compatible.since) or ()):
        found = f"{name} builds version-compatible engines"
        return RuleAnswer(rule=rule, verdict=Verdict.YES, found=found, sources=sources)
    found = f"version-compatible engines came with TensorRT {compatible.since}; this is {name}"
    wanted = f"TensorRT >= {compatible.since}, or versionCompatible: false"
    return RuleAnswer(rule=rule, verdict=Verdict.NO, found=found, wanted=wanted, sources=sources)


def _judge_level(matrix: Matrix, query: MatrixQuery, level: CompatibilityLevel) -> RuleAnswer:
    rule, name = "HardwareCompatibilityAllowed", f"hardwareCompatibility {level.name}"
    since, floor = version_numbers(level.since) or (), version_numbers(level.minimum_capability) or ()
    version = version_numbers(query.toolchain.version)
    text = capability_of(matrix, query.hardware)
    capability = version_numbers(text)
    verdict, found, wanted = Verdict.YES, f"{name} is possible on compute capability {text}", ""
    if version is not None and not is_at_least(version, since):
        verdict, found = Verdict.NO, f"{name} came with TensorRT {level.since}; this is {query.toolchain.version}"
        wanted = f"TensorRT >= {level.since}, or hardwareCompatibility: none"
    elif is_jetson(matrix, query.hardware) and not level.jetson:
        verdict, found, wanted = Verdict.NO, f"{name} does not exist on Jetson", "hardwareCompatibility: none"
    elif capability is None or version is None:
        missing = "the TensorRT version" if version is None else "the compute capability"
        verdict, found = Verdict.UNKNOWN, f"{missing} is not known; {name} needs >= {level.minimum_capability}"
    elif capability < floor:
        verdict, found = Verdict.NO, f"{name} needs compute capability >= {level.minimum_capability}; this is {text}"
        wanted = f"a GPU of compute capability >= {level.minimum_capability}, or hardwareCompatibility: none"
    return RuleAnswer(rule=rule, verdict=verdict, found=found, wanted=wanted, sources=level.sources)
