"""Rules that decide whether a stored engine may be loaded on a device. TensorRT has no preflight check for this.

By default an engine is bound to the exact library version, operating system, CPU architecture, GPU model and MIG
profile. `hardwareCompatibility` and `versionCompatible` in the manifest's flags relax that, TensorRT for RTX lists its
compute capabilities in `runs_on`, and ONNX Runtime is bound to a provider and an architecture.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from enginesmith_contract.backend_traits import MatrixPart, traits
from enginesmith_contract.backends import Backend, Hardware
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.matrix.judges import judge_driver
from enginesmith_contract.matrix.load import load_matrix
from enginesmith_contract.matrix.query import find_release
from enginesmith_contract.matrix.versions import is_at_least, major_of, version_numbers
from enginesmith_contract.products import canonical_mig_profile
from enginesmith_contract.verdicts import RuleAnswer, Verdict

__all__ = ["HARDWARE_COMPATIBILITY_FLAG", "VERSION_COMPATIBLE_FLAG", "fits"]

HARDWARE_COMPATIBILITY_FLAG: Final = "hardwareCompatibility"
VERSION_COMPATIBLE_FLAG: Final = "versionCompatible"

_YES: Final = Verdict.YES
_NO: Final = Verdict.NO
_UNKNOWN: Final = Verdict.UNKNOWN
_HOPPER: Final = (9, 0)


class _Case(NamedTuple):
    manifest: Manifest
    device: Hardware
    version: str
    provider: str | None

    @property
    def level(self) -> str:
        return self.manifest.key_inputs.flags.get(HARDWARE_COMPATIBILITY_FLAG, "none")


_Rule = Callable[[_Case], RuleAnswer]


def fits(
    manifest: Manifest, device: Hardware, toolchain_version: str, *, provider: str | None = None
) -> tuple[RuleAnswer, ...]:
    """Return one answer for each rule. The engine may be loaded if no answer is NO.

    Args:
        manifest: Manifest of the stored engine.
        device: Hardware that the device reports.
        toolchain_version: Full version of the installed library.
        provider: Execution provider that would run the engine; None if it is not known or the backend is not ONNX
            Runtime.
    """
    case = _Case(manifest, device, toolchain_version, provider)
    return tuple(rule(case) for rule in _rules_of(manifest.key_inputs.backend))


def _same_version(case: _Case) -> RuleAnswer:
    rule, inputs = "SameVersion", case.manifest.key_inputs
    row, built = traits(inputs.backend), inputs.backend_version
    if case.version == built:
        return _answer(rule, _YES, f"{row.title} {built} built it and loads it")
    found = f"built by {row.title} {built}; this is {case.version}"
    compatible = inputs.flags.get(VERSION_COMPATIBLE_FLAG, "false") == "true"
    if row.matrix is MatrixPart.RELEASES and compatible and _loads_across(built, case.version):
        return _answer(rule, _YES, f"version-compatible, {found}")
    return _answer(rule, _NO, found, f"a runtime with {row.title} {built}, or a build with {case.version}")


def _loads_across(built: str, loaded: str) -> bool:
    """Whether a version-compatible engine of `built` loads in `loaded`; never in an older one."""
    older, newer = version_numbers(built), version_numbers(loaded)
    if older is None or newer is None or not is_at_least(newer, older):
        return False
    steps = load_matrix().portability.version_compatible.across_majors
    return older[0] == newer[0] or any((s.built, s.loaded) == (str(older[0]), str(newer[0])) for s in steps)


def _same_os(case: _Case) -> RuleAnswer:
    return _same("SameOperatingSystem", "operating system", case.manifest.key_inputs.os, case.device.os)


def _same_arch(case: _Case) -> RuleAnswer:
    return _same("SameArchitecture", "CPU architecture", case.manifest.key_inputs.arch, case.device.arch)


def _same_provider(case: _Case) -> RuleAnswer:
    built = case.manifest.key_inputs.provider or "cpu"
    return _same("SameProvider", "execution provider", built, case.provider)


def _same_product(case: _Case) -> RuleAnswer:
    rule, built = "SameProduct", case.manifest.hardware.product or case.manifest.key_inputs.gpu_product
    if case.device.product is None:
        return _answer(rule, _NO, f"no GPU is visible here; the engine is for {built or 'one'}", f"a {built or 'GPU'}")
    if case.level != "none":
        return _answer(rule, _YES, f"{HARDWARE_COMPATIBILITY_FLAG} {case.level} allows another GPU model")
    return _same(rule, "GPU", built, case.device.product)


def _same_mig_profile(case: _Case) -> RuleAnswer:
    rule = "SameMigProfile"
    if case.device.product is None:
        return _answer(rule, _UNKNOWN, "no GPU is visible here")
    if case.level != "none":
        return _answer(rule, _YES, f"{HARDWARE_COMPATIBILITY_FLAG} {case.level} allows another partition")
    built = canonical_mig_profile(case.manifest.hardware.mig_profile) or "a whole GPU"
    here = canonical_mig_profile(case.device.mig_profile) or "a whole GPU"
    return _same(rule, "partition", built, here)


def _capability_fits(case: _Case) -> RuleAnswer:
    rule = "ComputeCapability"
    built, here = case.manifest.hardware.compute_capability, case.device.compute_capability
    floor = load_matrix().portability.levels
    if case.level != "ampere-plus" or built is None or here is None:
        return _same(rule, "compute capability", built, here)
    lowest = next(level.minimum_capability for level in floor if level.name == "ampere-plus")
    numbers = version_numbers(here) or ()
    if numbers < (version_numbers(lowest) or ()):
        found = f"an ampere-plus engine needs compute capability >= {lowest}; this GPU has {here}"
        return _answer(rule, _NO, found, f"a GPU of compute capability >= {lowest}, or a build for this one")
    if numbers > _HOPPER >= (version_numbers(built) or ()):
        return _answer(rule, _UNKNOWN, f"no source says whether an ampere-plus engine of {built} runs on {here}")
    return _answer(rule, _YES, f"an ampere-plus engine runs on compute capability {here}")


def _enough_multiprocessors(case: _Case) -> RuleAnswer:
    rule, built, here = "Multiprocessors", case.manifest.hardware.multiprocessors, case.device.multiprocessors
    if built is None or here is None:
        return _answer(rule, _UNKNOWN, "the number of multiprocessors is not known")
    if here >= built:
        return _answer(rule, _YES, f"{here} multiprocessors, built on {built}")
    found = f"this device has {here} multiprocessors; the engine was built on {built} and may hang on fewer"
    if case.level != "none":
        return _answer(rule, _UNKNOWN, f"{found}, unless {HARDWARE_COMPATIBILITY_FLAG} {case.level} prevents it")
    return _answer(rule, _NO, found, f"a device with >= {built} multiprocessors, or a build for this one")


def _driver_reached(case: _Case) -> RuleAnswer:
    matrix, toolchain = load_matrix(), case.manifest.toolchain
    if case.device.product is None:
        return _answer("DriverFloor", _UNKNOWN, "no GPU is visible here")
    release = find_release(matrix, case.version) if traits(toolchain.backend).matrix is MatrixPart.RELEASES else None
    cuda = toolchain.cuda or case.manifest.key_inputs.cuda
    if cuda is None or major_of(cuda) is None:
        return _answer("DriverFloor", _UNKNOWN, "the manifest names no CUDA version")
    return judge_driver(matrix, release, cuda, case.device.driver)


def _rtx_target(case: _Case) -> RuleAnswer:
    rule, rtx, here = "RtxTarget", load_matrix().tensorrt_rtx, case.device.compute_capability
    targets = case.manifest.runs_on or rtx.defaults
    if case.device.product is None and here is None:
        wanted = f"a GPU of compute capability {', '.join(targets)}"
        return _answer(rule, _NO, "no GPU is visible here; TensorRT for RTX builds on a CPU and runs on a GPU", wanted)
    if here is None:
        return _answer(rule, _UNKNOWN, f"the compute capability of {case.device.product} is not known")
    if here in targets:
        return _answer(rule, _YES, f"built for compute capability {here}")
    newest = max(version_numbers(target) or () for target in targets)
    if (version_numbers(here) or ()) > max(newest, version_numbers(rtx.newer_than) or ()):
        return _answer(rule, _UNKNOWN, f"compute capability {here} is newer than {', '.join(targets)}")
    found = f"built for compute capability {', '.join(targets)}; this GPU has {here}"
    return _answer(rule, _NO, found, f"a build whose targets include {here}, or backend: tensorrt where there is none")


def _same(rule: str, what: str, built: str | None, here: str | None) -> RuleAnswer:
    if built is None or here is None:
        return _answer(rule, _UNKNOWN, f"the {what} is not known on both sides: {built} and {here}")
    if built == here:
        return _answer(rule, _YES, f"{what} {here}")
    return _answer(
        rule, _NO, f"{what}: built for {built}, this is {here}", f"the {what} {built}, or a build for {here}"
    )


def _answer(rule: str, verdict: Verdict, found: str, wanted: str = "") -> RuleAnswer:
    return RuleAnswer(rule=rule, verdict=verdict, found=found, wanted=wanted)


def _rules_of(backend: Backend) -> tuple[_Rule, ...]:
    row = traits(backend)
    provider = (_same_provider,) if row.execution_providers else ()
    # TensorRT does not load plans of another build number.
    return (_same_version, _same_os, _same_arch, *_RULES_OF_PART.get(row.matrix, ()), *provider)


_RULES_OF_PART: Final[Mapping[MatrixPart | None, tuple[_Rule, ...]]] = {
    MatrixPart.RELEASES: (
        _same_product,  # another model of the same compute capability: TensorRT would only warn, then hang
        _same_mig_profile,
        _capability_fits,
        _enough_multiprocessors,
        _driver_reached,  # the driver may have changed since the build
    ),
    MatrixPart.RTX: (_rtx_target, _driver_reached),
}
