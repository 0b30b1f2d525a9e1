"""A real cluster for the tests of this folder: brought up where none runs, and left up."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant, model_at, new_namespace, new_tenant, upload_classifier
from tests.cluster.installation import (
    ROOT,
    SYSTEM,
    hardware_to_oneself,
    installed_operator,
    load_images,
    no_installed_operator,
    open_cluster,
    scale_operator,
)
from tests.cluster.operator_calls import OperatorCalls
from tests.cluster.small_model import ROWS, save_small_model

__all__ = ["ROOT", "SYSTEM", "scale_operator"]

_OPERATOR_LOCKS = {"operator", "sole_operator", "no_operator"}


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """A cluster that is up."""
    return open_cluster()


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> dict[str, str]:
    """The product's images, built from this checkout: references by digest, which every node has pulled."""
    return load_images(cluster)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own."""
    with new_namespace(cluster) as name:
        yield name


@pytest.fixture(scope="session")
def classifier(cluster: Cluster, ocr_models: Path) -> dict[str, Any]:
    """The text direction classifier in a bucket of the S3 server, as `spec.model` names it."""
    return upload_classifier(cluster, ocr_models)


@pytest.fixture
def tenant(cluster: Cluster, namespace: str, classifier: dict[str, Any]) -> Iterator[Tenant]:
    """A namespace of the test's own with an account for the S3 server; its engines are gone afterwards."""
    with new_tenant(cluster, namespace, classifier) as made:
        yield made


@pytest.fixture
def small_tenant(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Tenant]:
    """Such a namespace for engines of a model of one multiplication."""
    uri = f"s3://models/{namespace}/small.onnx"
    cluster.upload(save_small_model(tmp_path / "small.onnx"), uri)
    with new_tenant(cluster, namespace, model_at(cluster, uri)) as made:
        yield replace(made, profiles=ROWS)


@pytest.fixture
def calls(cluster: Cluster, namespace: str) -> OperatorCalls:
    """What the operator asks the API server about the namespace."""
    return OperatorCalls(cluster=cluster, namespace=namespace)


@pytest.fixture
def hardware(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[None]:
    """The GPUs, their labels and the simulated nodes for this test alone; afterwards they are what they were."""
    # In one order, whichever of them a test names first: two tests would else wait for each other for ever.
    for lock in _OPERATOR_LOCKS & set(request.fixturenames):
        request.getfixturevalue(lock)
    with hardware_to_oneself(cluster):
        yield


@pytest.fixture
def operator(cluster: Cluster, images: dict[str, str]) -> Iterator[None]:
    """The operator of this checkout, installed by its Helm chart; tests that run one of their own wait meanwhile."""
    with installed_operator(cluster, images):
        yield


@pytest.fixture
def sole_operator(cluster: Cluster, images: dict[str, str]) -> Iterator[None]:
    """The installed operator for this test alone, which restarts it or changes what all engines see."""
    with installed_operator(cluster, images, alone=True):
        yield


@pytest.fixture
def no_operator(cluster: Cluster) -> Iterator[None]:
    """A cluster whose installed operator stands still; it runs again afterwards."""
    with no_installed_operator(cluster):
        yield
