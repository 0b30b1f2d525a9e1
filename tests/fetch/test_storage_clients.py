"""The table of storage clients: its rows name what is installed, and both sides find their schemes in it."""

from importlib import import_module

import pytest

from enginesmith_operator.api.model import MODEL_SCHEMES
from enginesmith_runtime.fetch.location import Scheme
from enginesmith_runtime.storage_clients import (
    CLIENTS,
    STORE_CLIENTS,
    StorageClient,
    is_access_denied,
    open_file_system,
)

WITHOUT_ROW = {Scheme.FILE, Scheme.HTTP, Scheme.HTTPS, Scheme.MS}
FILE_SYSTEMS = [row for row in CLIENTS.values() if row.file_system is not None]


def test_every_scheme_of_a_model_has_a_row_or_a_client_of_its_own() -> None:
    assert {scheme for scheme in Scheme if scheme not in CLIENTS} == WITHOUT_ROW
    assert set(MODEL_SCHEMES) == {*Scheme, "pvc"}


def test_engines_are_kept_where_an_object_can_be_written_once() -> None:
    assert {"s3", "gs", "oss", "oci"} <= {row.scheme for row in STORE_CLIENTS}
    assert CLIENTS["hf"] not in STORE_CLIENTS


@pytest.mark.parametrize("row", FILE_SYSTEMS, ids=lambda row: row.scheme)
def test_a_row_names_a_class_of_an_installed_package(row: StorageClient) -> None:
    assert isinstance(getattr(import_module(row.module), row.file_system or ""), type)


@pytest.mark.parametrize(
    ("scheme", "variables", "want"),
    [
        ("s3", {}, {"endpoint_url": "http://127.0.0.1:9", "client_kwargs": {"region_name": "eu"}}),
        (
            "s3",
            {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
            {"endpoint_url": "http://127.0.0.1:9", "client_kwargs": {"region_name": "eu"}, "key": "a", "secret": "b"},
        ),
        (
            "oss",
            {"OSS_ACCESS_KEY_ID": "a", "OSS_ACCESS_KEY_SECRET": "b"},
            {"endpoint": "http://127.0.0.1:9", "key": "a", "secret": "b"},
        ),
        ("oss", {"OSS_ENDPOINT": "http://127.0.0.1:8"}, {"endpoint": "http://127.0.0.1:9"}),
    ],
)
def test_a_file_system_is_made_with_what_is_set(
    scheme: str, variables: dict[str, str], want: dict[str, object]
) -> None:
    made = open_file_system(CLIENTS[scheme], variables.get, endpoint="http://127.0.0.1:9", region="eu")
    assert dict(made.storage_options) == want


@pytest.mark.parametrize(
    ("error", "want"),
    [
        (PermissionError("no"), True),
        (RuntimeError("Unable to locate credentials"), True),
        (type("NoCredentialsError", (Exception,), {})("none"), True),
        (ConnectionError("refused"), False),
    ],
)
def test_an_error_about_credentials_is_told_from_one_of_the_network(error: Exception, *, want: bool) -> None:
    assert is_access_denied(error, str(error)) is want
