"""Where a stored engine may be loaded: each rule's yes, no and unknown."""

from typing import Any, NamedTuple

import pytest

from enginesmith_contract.backends import Backend, Hardware, Toolchain
from enginesmith_contract.errors import EngineRefusedError
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_contract.manifest import Manifest, Timings
from enginesmith_contract.matrix.portability import fits
from enginesmith_contract.preparation import Batching
from enginesmith_contract.verdicts import RuleAnswer, Verdict
from enginesmith_contract.verification import Verification, VerificationStatus
from enginesmith_runtime.engines.refusal import refuse_unless_fits

YES, NO, UNKNOWN = Verdict.YES, Verdict.NO, Verdict.UNKNOWN
A100 = Hardware(
    product="NVIDIA-A100-SXM4-80GB", compute_capability="8.0", multiprocessors=108, driver="580.95.05", memory_mib=81920
)
SLICE = A100.model_copy(update={"mig_profile": "1g.10gb", "multiprocessors": 14})
A30 = A100.model_copy(update={"product": "NVIDIA-A30", "multiprocessors": 56})
L4 = A100.model_copy(update={"product": "NVIDIA-L4", "compute_capability": "8.9", "multiprocessors": 58})
H100 = A100.model_copy(update={"product": "NVIDIA-H100-80GB-HBM3", "compute_capability": "9.0", "multiprocessors": 132})
B200 = A100.model_copy(update={"product": "NVIDIA-B200", "compute_capability": "10.0", "multiprocessors": 148})
T4 = Hardware(product="Tesla-T4", compute_capability="7.5", multiprocessors=40, driver="580.95.05")
NO_GPU = Hardware()
VERSION = "10.9.0.34"
AMPERE = {"hardwareCompatibility": "ampere-plus"}
SAME = {"hardwareCompatibility": "same-compute-capability"}
COMPATIBLE = {"versionCompatible": "true"}


def changed(hardware: Hardware, **fields: Any) -> Hardware:
    return hardware.model_copy(update=fields)


def manifest_of(
    backend: Backend, version: str, built_on: Hardware, flags: dict[str, str], runs_on: tuple[str, ...] = ()
) -> Manifest:
    cuda, provider = (None, "cpu") if backend is Backend.ONNXRUNTIME else ("12.8", None)
    inputs = EngineKeyInputs(
        preparation_key="0" * 64,
        backend=backend,
        backend_version=version,
        cuda=cuda,
        gpu_product=built_on.product,
        mig_profile=built_on.mig_profile,
        provider=provider,
        flags=flags,
    )
    return Manifest(
        engine_key=engine_key(inputs),
        key_inputs=inputs,
        source_digest="1" * 64,
        engine_digest="2" * 64,
        files=(),
        inputs=(),
        outputs=(),
        profiles=(),
        batching=Batching(proved=False),
        toolchain=Toolchain(name="t", backend=backend, version=version, cuda=cuda, provider=provider),
        hardware=built_on,
        runs_on=runs_on,
        timings=Timings(build_seconds=1.0),
        verification=Verification(status=VerificationStatus.NOT_RUN),
        created_at="2026-01-01T00:00:00Z",
    )


class Case(NamedTuple):
    """One engine on one device, and what one rule says of it."""

    rule: str
    want_verdict: Verdict
    want_found: str
    device: Hardware = A100
    flags: dict[str, str] | None = None
    built_on: Hardware = A100
    version: str = VERSION
    built_by: str = VERSION


TENSORRT_CASES = (
    Case("SameVersion", YES, "10.9.0.34 built it"),
    Case("SameVersion", NO, "built by TensorRT 10.9.0.34; this is 10.13.3.9", version="10.13.3.9"),
    Case("SameVersion", YES, "version-compatible", version="10.13.3.9", flags=COMPATIBLE),
    Case("SameVersion", YES, "version-compatible", version="11.4.0.106", flags=COMPATIBLE),
    Case("SameVersion", YES, "version-compatible", version="10.0.1.6", built_by="8.6.1.6", flags=COMPATIBLE),
    Case("SameVersion", NO, "this is 11.4.0.106", version="11.4.0.106", built_by="8.6.1.6", flags=COMPATIBLE),
    Case("SameVersion", NO, "this is 10.8.0.43", version="10.8.0.43", flags=COMPATIBLE),
    Case("SameVersion", NO, "this is 10.13.3.9", version="10.13.3.9", flags={"versionCompatible": "false"}),
    Case("SameOperatingSystem", YES, "linux"),
    Case("SameOperatingSystem", NO, "built for linux, this is windows", changed(A100, os="windows")),
    Case("SameArchitecture", YES, "amd64"),
    Case("SameArchitecture", NO, "built for amd64, this is arm64", changed(A100, arch="arm64")),
    Case("SameProduct", YES, "NVIDIA-A100-SXM4-80GB"),
    Case("SameProduct", NO, "built for NVIDIA-A100-SXM4-80GB, this is NVIDIA-A30", A30),
    Case("SameProduct", YES, "allows another GPU model", A30, SAME),
    Case("SameProduct", NO, "no GPU is visible here; the engine is for NVIDIA-A100-SXM4-80GB", NO_GPU),
    Case("SameProduct", NO, "no GPU is visible here", NO_GPU, AMPERE),
    Case("SameProduct", YES, "GPU NVIDIA-A100-SXM4-80GB", built_on=changed(A100, product="NVIDIA-A100-SXM4-80GB")),
    Case("SameMigProfile", YES, "a whole GPU"),
    Case("SameMigProfile", NO, "built for a whole GPU, this is 1g.10gb", SLICE),
    Case("SameMigProfile", NO, "built for 1g.10gb, this is a whole GPU", built_on=SLICE),
    Case("SameMigProfile", YES, "allows another partition", SLICE, SAME),
    Case("ComputeCapability", YES, "8.0"),
    Case("ComputeCapability", NO, "built for 8.0, this is 9.0", H100),
    Case("ComputeCapability", NO, "built for 8.0, this is 8.9", L4, SAME),
    Case("ComputeCapability", YES, "runs on compute capability 8.9", L4, AMPERE),
    Case("ComputeCapability", YES, "runs on compute capability 8.0", A100, AMPERE, built_on=H100),
    Case("ComputeCapability", NO, "needs compute capability >= 8.0; this GPU has 7.5", T4, AMPERE),
    Case("ComputeCapability", UNKNOWN, "no source says", B200, AMPERE),
    Case("ComputeCapability", UNKNOWN, "not known", changed(A100, compute_capability=None)),
    Case("Multiprocessors", YES, "108 multiprocessors"),
    Case("Multiprocessors", NO, "14 multiprocessors; the engine was built on 108 and may hang", SLICE),
    Case("Multiprocessors", YES, "132 multiprocessors, built on 108", H100, AMPERE),
    Case("Multiprocessors", UNKNOWN, "unless hardwareCompatibility same-compute-capability", A30, SAME),
    Case("Multiprocessors", UNKNOWN, "not known", changed(A100, multiprocessors=None)),
    Case("DriverFloor", YES, "580.95.05 reaches 525.60.13"),
    Case("DriverFloor", NO, "driver 470.82.01 is older than 525.60.13", changed(A100, driver="470.82.01")),
    Case("DriverFloor", UNKNOWN, "not known", changed(A100, driver=None)),
)


def _answer(answers: tuple[RuleAnswer, ...], rule: str) -> RuleAnswer:
    return next(answer for answer in answers if answer.rule == rule)


@pytest.mark.parametrize("case", TENSORRT_CASES, ids=lambda case: f"{case.rule}-{case.want_verdict}-{case.want_found}")
def test_a_tensorrt_engine_is_judged_against_what_it_was_built_on(case: Case) -> None:
    manifest = manifest_of(Backend.TENSORRT, case.built_by, case.built_on, case.flags or {})
    answer = _answer(fits(manifest, case.device, case.version), case.rule)
    assert (answer.verdict, case.want_found in answer.found) == (case.want_verdict, True), answer
    assert bool(answer.wanted) is (answer.verdict is NO), answer


RTX_TARGETS = ("8.6", "8.9")


@pytest.mark.parametrize(
    ("device", "runs_on", "rule", "want_verdict", "want_found"),
    [
        (L4, RTX_TARGETS, "RtxTarget", YES, "built for compute capability 8.9"),
        (T4, RTX_TARGETS, "RtxTarget", NO, "built for compute capability 8.6, 8.9; this GPU has 7.5"),
        (H100, (), "RtxTarget", NO, "this GPU has 9.0"),
        (changed(L4, product="Another-Ada"), RTX_TARGETS, "RtxTarget", YES, "8.9"),
        (changed(L4, compute_capability="13.0"), RTX_TARGETS, "RtxTarget", UNKNOWN, "13.0 is newer"),
        (changed(L4, compute_capability=None), RTX_TARGETS, "RtxTarget", UNKNOWN, "is not known"),
        (NO_GPU, RTX_TARGETS, "RtxTarget", NO, "no GPU is visible here; TensorRT for RTX builds on a CPU"),
        (changed(L4, driver="470.82.01"), RTX_TARGETS, "DriverFloor", NO, "older than 525.60.13"),
    ],
)
def test_a_tensorrt_for_rtx_engine_runs_on_its_targets(
    device: Hardware, runs_on: tuple[str, ...], rule: str, want_verdict: Verdict, want_found: str
) -> None:
    manifest = manifest_of(Backend.TENSORRT_RTX, "1.7.1.116", NO_GPU, {}, runs_on)
    answer = _answer(fits(manifest, device, "1.7.1.116"), rule)
    assert (answer.verdict, want_found in answer.found) == (want_verdict, True), answer


@pytest.mark.parametrize(
    ("manifest", "device", "version", "want"),
    [
        (
            manifest_of(Backend.TENSORRT_RTX, "1.7.1.116", NO_GPU, {}, ("8.9",)),
            NO_GPU,
            "1.7.1.116",
            ". It needs a GPU of compute capability 8.9.",
        ),
        (
            manifest_of(Backend.TENSORRT, VERSION, A100, {}),
            A30,
            VERSION,
            ". It needs the GPU NVIDIA-A100-SXM4-80GB, or a build for NVIDIA-A30; ",
        ),
    ],
    ids=["no GPU", "another GPU"],
)
def test_a_refusal_ends_in_a_sentence_that_says_what_the_engine_needs(
    manifest: Manifest, device: Hardware, version: str, want: str
) -> None:
    with pytest.raises(EngineRefusedError) as refused:
        refuse_unless_fits(manifest, device, version)
    assert want in str(refused.value)


@pytest.mark.parametrize(
    ("device", "version", "provider", "want_refused"),
    [
        (NO_GPU, "1.32.0", "cpu", ()),
        (NO_GPU, "1.32.0", None, ()),
        (A100, "1.32.0", "cpu", ()),
        (NO_GPU, "1.31.0", "cpu", ("SameVersion",)),
        (changed(NO_GPU, arch="arm64"), "1.32.0", "openvino", ("SameArchitecture", "SameProvider")),
    ],
)
def test_an_onnxruntime_engine_is_bound_to_version_architecture_and_provider(
    device: Hardware, version: str, provider: str | None, want_refused: tuple[str, ...]
) -> None:
    manifest = manifest_of(Backend.ONNXRUNTIME, "1.32.0", NO_GPU, {})
    answers = fits(manifest, device, version, provider=provider)
    assert tuple(answer.rule for answer in answers if answer.verdict is NO) == want_refused


def test_a_slice_of_the_gpu_that_an_engine_was_built_on_is_refused_for_both_reasons() -> None:
    answers = fits(manifest_of(Backend.TENSORRT, VERSION, A100, {}), SLICE, VERSION)
    assert [answer.rule for answer in answers if answer.verdict is NO] == ["SameMigProfile", "Multiprocessors"]
