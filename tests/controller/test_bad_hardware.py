"""What a status says of hardware that will not do: the runtime's own error, by its termination message, as one line.

The drivers and GPUs are fakes; the errors, the messages and the decisions are the product's.
"""

import json
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
from tests.controller.build_snapshots import ENDED, decide, ended_builder, make_job, make_pod
from tests.controller.engine_world import EngineWorld
from tests.engines.fake_cuda import FakeBindings, FakeDevice, FakeDriver
from tests.engines.fake_nvml import crowded_nvml

from enginesmith_contract.backends import Backend, Hardware, Toolchain
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import BuildError, EnginesmithError
from enginesmith_contract.failure import Failure
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_contract.pull_request import ServingReport
from enginesmith_operator.controller.shared.status_document import status_document
from enginesmith_runtime.build.device_check import check_device
from enginesmith_runtime.build.outcome import encode_outcome, failure_message
from enginesmith_runtime.engines.cuda.device import open_device
from enginesmith_runtime.engines.cuda.driver import require_driver
from enginesmith_runtime.pod.termination import encode_serving_report

_L4 = Hardware(product="NVIDIA-L4", compute_capability="8.9", driver="580.95.05")
_T4 = Hardware(product="Tesla-T4", compute_capability="7.5", driver="580.95.05")


def _check(found: Hardware) -> None:
    toolchain = Toolchain(name="trt-10.13", backend=Backend.TENSORRT, version="10.13.3.9", cuda="12.9")
    inputs = EngineKeyInputs(preparation_key="0" * 64, backend=Backend.TENSORRT, backend_version=toolchain.version)
    check_device(
        found,
        BuildRequest(engine_key=engine_key(inputs), key_inputs=inputs, store="", toolchain=toolchain, hardware=_L4),
    )


def _open(device: FakeDevice) -> None:
    open_device(FakeDriver(device), FakeBindings(device))


class _Case(NamedTuple):
    happen: Callable[[], None]
    reason: str
    said: tuple[str, ...]


_CASES = {
    "a label that lies": _Case(lambda: _check(_T4), "WrongDevice", ("labels say NVIDIA-L4, the GPU is Tesla-T4",)),
    "a driver that is too old": _Case(
        lambda: _check(_L4.model_copy(update={"driver": "470.57.02"})), "DriverFloor", ("driver 470.57.02 is older",)
    ),
    "a pod without a device": _Case(
        lambda: require_driver(BuildError, "libcuda-nowhere.so.1"), "NoDriver", ("no NVIDIA driver", "GPU resource")
    ),
    "a GPU that another process has": _Case(
        lambda: _open(FakeDevice(refusal="all CUDA-capable device(s) is/are busy or unavailable")),
        "DeviceBusy",
        ("held by another process", "process 4711 holds 130.0 GiB", "nvidia-smi -c 0"),
    ),
    "no memory left": _Case(
        lambda: _open(FakeDevice(free=0)), "OutOfMemory", ("2.0 of 140.0 GiB of the GPU are free", "process 4711")
    ),
}


@pytest.fixture(params=_CASES)
def bad(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[_Case, EnginesmithError]:
    """What went wrong, and the error that the runtime raised for it."""
    monkeypatch.setitem(sys.modules, "pynvml", crowded_nvml())
    case = _CASES[request.param]
    with pytest.raises(EnginesmithError) as refusal:
        case.happen()
    return case, refusal.value


def _check_sentence(case: _Case, reason: str, message: str) -> None:
    assert reason == case.reason
    assert "\n" not in message
    for part in case.said:
        assert part in message


def test_a_build_says_it_in_its_status(bad: tuple[_Case, EnginesmithError]) -> None:
    case, error = bad
    word = json.loads(encode_outcome(failure_message(error, None)))
    container = ended_builder(int(error.exit_code), word)
    decision = decide(make_job(failure="PodFailurePolicy", finished_at=ENDED), make_pod(container))
    assert decision.status.failure is not None
    _check_sentence(case, decision.status.failure.reason, decision.status.failure.message)
    assert [(event.is_warning, event.reason) for event in decision.events] == [(True, case.reason)]

    world = EngineWorld()
    world.step()
    world.end_preparation()
    world.step()
    (build,) = world.of_kind("EngineBuild")
    world.put(build | {"status": status_document(decision.status)})
    world.step()
    _check_sentence(case, world.condition("Built").reason, world.condition("Built").message)
    assert decision.status.failure.message in world.condition("Ready").message


def test_a_server_says_it_in_the_engine_s_status(bad: tuple[_Case, EnginesmithError]) -> None:
    case, error = bad
    world = EngineWorld()
    world.step()
    world.end_preparation()
    world.step()
    world.end_builds()
    world.step()
    report = json.loads(encode_serving_report(ServingReport(failure=Failure.from_error(error))))
    world.start_pods(ready=False, exit_code=30, message=report)
    world.step()
    target = world.target("l4")
    assert target.reason is not None
    _check_sentence(case, target.reason, target.message)
    _check_sentence(case, world.condition("Ready").reason, world.condition("Ready").message)
