"""Opens the client for a remote URI. A client's libraries are imported only when they are needed."""

from collections.abc import Iterator
from contextlib import contextmanager

from enginesmith_contract.preparation import ModelSource
from enginesmith_runtime.fetch.http import HttpOrigin
from enginesmith_runtime.fetch.location import Scheme, scheme_of
from enginesmith_runtime.fetch.modelscope import ModelScopeOrigin
from enginesmith_runtime.fetch.object_store import ObjectStoreOrigin
from enginesmith_runtime.fetch.options import check_options
from enginesmith_runtime.fetch.origin import Origin
from enginesmith_runtime.fetch.registry import RegistryOrigin

__all__ = ["open_origin"]


@contextmanager
def open_origin(source: ModelSource) -> Iterator[Origin]:
    """Open the client of a remote source.

    Raises:
        enginesmith_contract.errors.SourceError: `MissingClient`, `UnknownOption`, `UnsupportedScheme`, `NotFound`.
    """
    scheme = scheme_of(source.uri)
    match scheme:
        case Scheme.FILE:
            raise ValueError(source.uri)
        case Scheme.HTTP | Scheme.HTTPS:
            check_options(source, ())
            with HttpOrigin(source.uri) as origin:
                yield origin
        case Scheme.MS:
            with ModelScopeOrigin(source) as origin:
                yield origin
        case Scheme.OCI:
            yield RegistryOrigin(source)
        case _:
            yield ObjectStoreOrigin(source, scheme)
