"""An image that is not what the toolchain catalog says: one sentence that names the image and what to correct."""

import pytest

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.backends import Backend, Toolchain
from enginesmith_contract.errors import BuildError
from enginesmith_runtime.build.toolchain_check import check_toolchain
from enginesmith_runtime.engines.registry import builder, installed_toolchains

IMAGE = "registry.example/enginesmith/runtime@sha256:" + "a" * 64


def refuse(wanted: Toolchain) -> BuildError:
    """Return how a build with this toolchain is refused here."""
    with pytest.raises(BuildError) as refusal:
        check_toolchain(builder(wanted.backend), wanted)
    return refusal.value


def installed(backend: Backend) -> Toolchain:
    """Return the toolchain of this environment, as if an image had it."""
    found = next(one for one in installed_toolchains() if one.backend is backend)
    return found.model_copy(update={"name": "entry", "image": IMAGE})


def test_an_image_without_the_library_is_named_with_what_it_has() -> None:
    wanted = Toolchain(name="trt-10.6", backend=Backend.TENSORRT, version="10.6.0", cuda="12.6", image=IMAGE)
    refusal = refuse(wanted)
    assert refusal.reason == "ToolchainMissing"
    onnxruntime = installed(Backend.ONNXRUNTIME).version
    for expected in (
        "TensorRT is not installed",
        IMAGE,
        f"ONNX Runtime {onnxruntime}",
        "entry trt-10.6 of the toolchain",
    ):
        assert expected in str(refusal)


def test_an_image_with_another_version_is_named_with_both_versions() -> None:
    there = installed(Backend.TENSORRT_RTX)
    refusal = refuse(there.model_copy(update={"version": "1.8.0.1"}))
    assert refusal.reason == "ToolchainDiffers"
    for expected in (IMAGE, there.version, "1.8.0.1", "entry entry of the toolchain catalog"):
        assert expected in str(refusal)


def test_an_image_for_another_cuda_is_named_with_both() -> None:
    there = installed(Backend.TENSORRT_RTX)
    refusal = refuse(there.model_copy(update={"cuda": "12.9"}))
    assert refusal.reason == "ToolchainDiffers"
    for expected in (IMAGE, "CUDA 13", "CUDA 12.9"):
        assert expected in str(refusal)


def test_another_minor_version_of_the_same_cuda_is_no_other_cuda() -> None:
    there = installed(Backend.TENSORRT_RTX)
    check_toolchain(builder(there.backend), there.model_copy(update={"cuda": "13.9"}))


def test_without_an_image_the_package_to_install_is_named() -> None:
    there = installed(Backend.TENSORRT_RTX)
    refusal = refuse(there.model_copy(update={"version": "1.8.0.1", "image": None}))
    assert f"Install {traits(there.backend).install} 1.8.0.1" in str(refusal)
    assert "catalog" not in str(refusal)
