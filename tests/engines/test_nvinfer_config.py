"""Build options in the configuration of NVIDIA's own builder, by TensorRT for RTX, which needs no GPU for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.errors import BuildError
from enginesmith_runtime.engines.interface import BuildJob
from enginesmith_runtime.engines.nvinfer.config import configure
from enginesmith_runtime.engines.nvinfer.library import RTX_LIBRARY
from enginesmith_runtime.engines.nvinfer.messages import create_logger

MakeJob = Callable[..., BuildJob]
Configure = Callable[..., Any]

_FLAGS = ("VERSION_COMPATIBLE", "WEIGHT_STREAMING", "REFIT", "TF32")


@pytest.fixture
def configured(make_job: MakeJob, tmp_path: Path) -> Configure:
    """Return the configuration of a job: `configured(precision=..., weight_streaming=True)`."""
    module = RTX_LIBRARY.load()
    model = tmp_path / "model.onnx"
    model.write_bytes(b"never read")

    def run(precision: Precision = Precision.FP32, **options: object) -> Any:
        job = make_job(model, (), (), options=options)
        policy = PrecisionPolicy(default=precision)
        prepared = job.preparation.model_copy(update={"precision": policy})
        changed = BuildJob(
            request=job.request, preparation=prepared, model=job.model, output=job.output, device=job.device
        )
        return configure(module, module.Builder(create_logger(module)), changed)

    return run


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, set()),
        ({"version_compatible": True}, {"VERSION_COMPATIBLE"}),
        ({"weight_streaming": True}, {"WEIGHT_STREAMING"}),
        ({"refittable": True}, {"REFIT"}),
        ({"precision": Precision.TF32}, {"TF32"}),
        ({"precision": Precision.FP16}, set()),
    ],
)
def test_an_option_sets_its_flag_and_no_other(
    options: dict[str, object], want: set[str], configured: Configure
) -> None:
    flags = RTX_LIBRARY.load().BuilderFlag
    config = configured(**options)
    assert {name for name in _FLAGS if config.get_flag(getattr(flags, name))} == want


def test_workspace_and_optimisation_level_reach_the_builder(configured: Configure) -> None:
    pool = RTX_LIBRARY.load().MemoryPoolType.WORKSPACE
    config = configured(workspace_bytes=123 << 20, optimization_level=5)
    assert (config.get_memory_pool_limit(pool), config.builder_optimization_level) == (123 << 20, 5)
    assert configured().get_memory_pool_limit(pool) == 1 << 30


def test_a_level_that_this_version_does_not_have_is_refused_by_name(configured: Configure) -> None:
    with pytest.raises(BuildError) as refusal:
        configured(hardware_compatibility="turing-plus")
    assert (refusal.value.reason, refusal.value.where) == ("OptionUnsupported", "build.hardwareCompatibility")
    assert "turing-plus" in refusal.value.why
