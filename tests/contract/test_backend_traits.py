"""Every backend has one row of traits, and the rows agree with the modules that implement them."""

from importlib.util import find_spec

import pytest

from enginesmith_contract.backend_traits import list_traits, traits
from enginesmith_contract.backends import Backend


def test_every_backend_has_exactly_one_row() -> None:
    assert sorted(row.backend for row in list_traits()) == sorted(Backend)


@pytest.mark.parametrize("backend", list(Backend))
def test_a_row_names_a_module_of_the_engines_package(backend: Backend) -> None:
    assert find_spec(f"enginesmith_runtime.engines.{traits(backend).module}") is not None


@pytest.mark.parametrize("backend", list(Backend))
def test_a_backend_that_no_package_brings_is_brought_by_an_execution_provider(backend: Backend) -> None:
    row = traits(backend)
    assert bool(row.packages) != row.execution_providers
    # Which TensorRT to install follows from the GPU and its driver.
    assert bool(row.packages) == (row.install is not None or row.builds_on_gpu)
