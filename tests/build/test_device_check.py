"""The GPU that a build is on, held against the one that the node's labels promised."""

import pytest

from enginesmith_contract.backends import Backend, Hardware, Toolchain
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import BuildError
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_runtime.build.device_check import check_device

H200 = Hardware(product="NVIDIA-H200", compute_capability="9.0", driver="580.95.05")
A100 = Hardware(product="NVIDIA-A100-SXM4-80GB", compute_capability="8.0", driver="580.95.05")
TENSORRT = Toolchain(name="trt-10.6-cu12", backend=Backend.TENSORRT, version="10.6.0", cuda="12.6")
CUDA_13 = TENSORRT.model_copy(update={"name": "trt-10.13-cu13", "version": "10.13.3.9", "cuda": "13.0"})


@pytest.mark.parametrize(
    ("device", "wanted"),
    [
        pytest.param(H200, H200, id="the same"),
        pytest.param(H200, Hardware(), id="any"),
        pytest.param(H200, H200.model_copy(update={"driver": "570.1", "memory_mib": 1}), id="another driver's label"),
        pytest.param(
            A100.model_copy(update={"mig_profile": "1g.10gb+me"}),
            A100.model_copy(update={"mig_profile": "1g.10gb.me"}),
            id="one slice, spelled in two ways",
        ),
    ],
)
def test_the_gpu_that_the_labels_name_is_built_on(device: Hardware, wanted: Hardware) -> None:
    check_device(device, _request(wanted, TENSORRT))


@pytest.mark.parametrize(
    ("device", "wanted", "want_fragments"),
    [
        pytest.param(H200, A100, ("labels say NVIDIA-A100-SXM4-80GB, the GPU is NVIDIA-H200",), id="another product"),
        pytest.param(
            A100.model_copy(update={"mig_profile": "1g.10gb"}),
            A100,
            ("the GPU is NVIDIA-A100-SXM4-80GB (MIG profile 1g.10gb)",),
            id="a slice",
        ),
    ],
)
def test_a_label_that_lies_is_found_out_before_the_builder_starts(
    device: Hardware, wanted: Hardware, want_fragments: tuple[str, ...]
) -> None:
    with pytest.raises(BuildError) as refusal:
        check_device(device, _request(wanted, TENSORRT))
    assert refusal.value.reason == "WrongDevice"
    for fragment in (*want_fragments, "nvidia.com/gpu.product", "restart GPU Feature Discovery", "nothing was built"):
        assert fragment in str(refusal.value) + refusal.value.remedy


@pytest.mark.parametrize(
    ("driver", "toolchain", "want_reason"),
    [
        ("580.95.05", CUDA_13, None),
        ("570.26", CUDA_13, "DriverFloor"),
        ("470.57.02", TENSORRT, "DriverFloor"),
        ("550.54.14", TENSORRT, None),
        (None, CUDA_13, None),
        ("unknown", CUDA_13, None),
    ],
)
def test_a_driver_that_is_too_old_is_found_out_before_the_builder_starts(
    driver: str | None, toolchain: Toolchain, want_reason: str | None
) -> None:
    device = H200.model_copy(update={"driver": driver})
    if want_reason is None:
        check_device(device, _request(H200, toolchain))
        return
    with pytest.raises(BuildError) as refusal:
        check_device(device, _request(H200, toolchain))
    assert refusal.value.reason == want_reason
    assert f"driver {driver} is older than" in refusal.value.why
    assert toolchain.name in refusal.value.where
    assert "on the node" in refusal.value.remedy


def _request(hardware: Hardware, toolchain: Toolchain) -> BuildRequest:
    inputs = EngineKeyInputs(preparation_key="0" * 64, backend=Backend.TENSORRT, backend_version=toolchain.version)
    return BuildRequest(
        engine_key=engine_key(inputs), key_inputs=inputs, store="", toolchain=toolchain, hardware=hardware
    )
