"""What differs between the backends, as data: one validated row of `backends.yaml` for each.

Code reads a trait (`traits(backend).runs_on_gpu`) and does not compare backends, so a new backend is a new row.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from importlib.resources import files

import yaml

from enginesmith_contract.backends import Backend
from enginesmith_contract.record import Record
from enginesmith_contract.tensors import DType

__all__ = ["BackendPackage", "BackendTraits", "MatrixPart", "OptionTable", "list_traits", "traits"]


class MatrixPart(StrEnum):
    """Part of the version matrix that judges a backend."""

    RELEASES = "releases"
    RTX = "rtx"


class OptionTable(StrEnum):
    """Table of `backend_options` that has a backend's options."""

    NVINFER = "nvinfer"
    ONNXRUNTIME = "onnxruntime"


class BackendPackage(Record):
    """A Python package that brings a backend.

    Attributes:
        name: Name of the package. Its version is the version of the library.
        cuda: CUDA major version in the name; None if the name has none.
    """

    name: str
    cuda: str | None = None


class BackendTraits(Record):
    """One backend.

    Attributes:
        backend: Name of the backend in documents.
        title: Name of the backend in sentences.
        module: Module in `enginesmith_runtime.engines`.
        matrix: Part of the version matrix that judges the backend; None if no part does.
        options: Table of its `backendOptions`; None if it has no options.
        runs_on_gpu: Whether an engine needs a GPU to run.
        builds_on_gpu: Whether a build needs the GPU that the engine is for.
        builds_for_absent_gpus: Whether a build on a CPU can make an engine for a GPU of another machine.
        execution_providers: Whether a target may name an ONNX Runtime execution provider.
        version_ranges: Whether the ranges of `spec.toolchain` limit its versions.
        value_ranges: Whether a build needs ranges for the values of inputs that hold sizes.
        build_options: Whether the options of `spec.build` are part of its engines' keys.
        optimization_levels: Whether a lower optimization level makes a build much shorter.
        plugins: Whether it loads plugin libraries.
        refit: Whether an engine can take new weights without a build.
        timing_cache: Whether builds share measured timings.
        packages: Python packages that contain the backend, the preferred one first.
        install: Package that messages recommend; None if the execution provider or the machine decides.
        missing_dtypes: Datatypes that inputs and outputs cannot have, each with its remedy.
        triton_platform: Value of `platform` in ModelMetadata and ModelConfig.
        triton_backend: Value of `backend` in ModelConfig.
    """

    backend: Backend
    title: str
    module: str
    matrix: MatrixPart | None = None
    options: OptionTable | None = None
    runs_on_gpu: bool = False
    builds_on_gpu: bool = False
    builds_for_absent_gpus: bool = False
    execution_providers: bool = False
    version_ranges: bool = False
    value_ranges: bool = False
    build_options: bool = False
    optimization_levels: bool = False
    plugins: bool = False
    refit: bool = False
    timing_cache: bool = False
    packages: tuple[BackendPackage, ...] = ()
    install: str | None = None
    missing_dtypes: Mapping[DType, str] = {}
    triton_platform: str
    triton_backend: str


@cache
def list_traits() -> tuple[BackendTraits, ...]:
    """Return the row of every backend, in the order of `backends.yaml`."""
    text = files("enginesmith_contract").joinpath("backends.yaml").read_text(encoding="utf-8")
    return tuple(BackendTraits.model_validate(entry) for entry in yaml.safe_load(text))


@cache
def traits(backend: Backend) -> BackendTraits:
    """Return the row of `backend`; every member of `Backend` has one."""
    return next(row for row in list_traits() if row.backend is backend)
