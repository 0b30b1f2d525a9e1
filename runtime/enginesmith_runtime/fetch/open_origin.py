"""From a remote URI to the client that reads it; a client's libraries are imported only when it is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import assert_never

from enginesmith_contract.preparation import ModelSource
from enginesmith_runtime.fetch.http import HttpOrigin
from enginesmith_runtime.fetch.location import Scheme, scheme_of
from enginesmith_runtime.fetch.modelscope import ModelScopeOrigin
from enginesmith_runtime.fetch.options import check_options
from enginesmith_runtime.fetch.origin import Origin

__all__ = ["open_origin"]


@contextmanager
def open_origin(source: ModelSource) -> Iterator[Origin]:
    """Open the client of a remote source.

    Raises:
        enginesmith_contract.errors.SourceError: `MissingClient`, `UnknownOption`, `UnsupportedScheme`, `NotFound`.
    """
    match scheme_of(source.uri):
        case Scheme.FILE:
            raise ValueError(source.uri)
        case Scheme.HTTP | Scheme.HTTPS:
            check_options(source, ())
            with HttpOrigin(source.uri) as origin:
                yield origin
        case Scheme.MS:
            with ModelScopeOrigin(source) as origin:
                yield origin
        case Scheme.S3 | Scheme.GS | Scheme.OSS | Scheme.HF as scheme:
            from enginesmith_runtime.fetch.object_store import (
                ObjectStoreOrigin,
            )

            yield ObjectStoreOrigin(source, scheme)
        case Scheme.OCI:
            from enginesmith_runtime.fetch.registry import RegistryOrigin

            yield RegistryOrigin(source)
        case unknown:
            assert_never(unknown)
