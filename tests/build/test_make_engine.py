"""What happens to an engine that was built and does not run: each in the class by which it is handled."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import (
    BuildError,
    BuildOutOfMemoryError,
    DeviceFailedError,
    EngineRefusedError,
    EnginesmithError,
    InferenceError,
)
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import Preparation
from enginesmith_runtime.build import make_engine as making
from enginesmith_runtime.build.make_engine import make_engine
from enginesmith_runtime.build.wire import ChildJob
from enginesmith_runtime.engines.interface import Engine
from enginesmith_runtime.engines.registry import loader
from enginesmith_runtime.progress import SilentReporter

PrepareModel = Callable[..., Preparation]
MakeRequest = Callable[..., BuildRequest]
SmallModel = Callable[..., Path]


def _refused(reason: str, kind: type[EnginesmithError] = EngineRefusedError) -> EnginesmithError:
    return kind("it takes 90 GiB, 70 GiB are free", where="profile huge", remedy="lower max", reason=reason)


@pytest.mark.parametrize("at", ["load", "open_instance", "infer"])
@pytest.mark.parametrize(
    ("raised", "want", "want_reason"),
    [
        (_refused("OutOfMemory"), BuildOutOfMemoryError, "OutOfMemory"),
        (_refused("EngineUnreadable"), BuildError, "EngineUnreadable"),
    ],
)
def test_an_engine_that_does_not_fit_the_device_fails_the_build_with_what_was_found(
    at: str,
    raised: EnginesmithError,
    want: type[EnginesmithError],
    want_reason: str,
    job: ChildJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _fail(monkeypatch, job, at, raised)
    with pytest.raises(BuildError) as failure:
        make_engine(job, SilentReporter(), lambda: False)
    assert (type(failure.value), failure.value.reason) == (want, want_reason)
    assert "90 GiB" in failure.value.why
    assert (failure.value.where, failure.value.remedy) == ("profile huge", "lower max")


def test_one_inference_that_fails_fails_the_build(job: ChildJob, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail(monkeypatch, job, "infer", _refused("InferenceFailed", InferenceError))
    with pytest.raises(BuildError) as failure:
        make_engine(job, SilentReporter(), lambda: False)
    assert failure.value.reason == "InferenceFailed"


@pytest.mark.parametrize("at", ["load", "infer"])
def test_a_device_that_breaks_is_no_fault_of_the_model(at: str, job: ChildJob, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail(monkeypatch, job, at, _refused("DeviceFailed", DeviceFailedError))
    with pytest.raises(DeviceFailedError):
        make_engine(job, SilentReporter(), lambda: False)


def _fail(monkeypatch: pytest.MonkeyPatch, job: ChildJob, at: str, error: EnginesmithError) -> None:
    """Let one step of the real backend raise what a GPU's would."""

    def fail(*_arguments: object, **_named: object) -> NoReturn:
        raise error

    real = loader(job.request.toolchain.backend)

    class _Loader:
        """The real loader but for one step."""

        def load(self, manifest: Manifest, files: Path, options: Mapping[str, str], *, instances: int = 1) -> Engine:
            if at == "load":
                fail()
            engine = real.load(manifest, files, options, instances=instances)
            if at == "open_instance":
                monkeypatch.setattr(engine, "open_instance", fail)
            if at == "infer":
                instance = engine.open_instance()
                monkeypatch.setattr(instance, "infer", fail)
                monkeypatch.setattr(engine, "open_instance", lambda: instance)
            return engine

    monkeypatch.setattr(making, "loader", lambda _backend: _Loader())
