"""Models on the ModelScope hub, from the download address that its own client uses.

    ms://owner/repository@revision/folder/model.onnx
      └─> ENDPOINT/api/v1/models/owner/repository/repo?Revision=revision&FilePath=folder%2Fmodel.onnx

The hub responds with the file or a redirect to its storage. A token is sent only to the hub, like its client does: in
the Authorization header and as the session cookie, because the download reads either.
"""

import os
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final, NamedTuple
from urllib.parse import quote_plus

import httpx
from typing_extensions import override

from enginesmith_contract.errors import SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_runtime.fetch.http import HttpOrigin
from enginesmith_runtime.fetch.location import model_name, redact
from enginesmith_runtime.fetch.options import check_options
from enginesmith_runtime.fetch.reasons import SourceReason

__all__ = ["ModelScopeOrigin"]

_ENDPOINT: Final = "https://modelscope.cn"
_TOKEN: Final = "MODELSCOPE_API_TOKEN"  # noqa: S105 - the variable's name, not a token
_SESSION_COOKIE: Final = "m_session_id"
_REVISION: Final = "master"


class _Address(NamedTuple):
    """Parts of a URI."""

    repository: str
    revision: str
    path: str


class ModelScopeOrigin(HttpOrigin):
    """The folder of a model in a repository of the hub.

    Attributes:
        model: File name of the model.
    """

    def __init__(self, source: ModelSource, environment: Mapping[str, str] = os.environ) -> None:
        """Open the client without a request.

        Raises:
            enginesmith_contract.errors.SourceError: `UnknownOption`, `NotFound`.
        """
        check_options(source, ("endpoint",))
        self._address = _address(source.uri)
        self._endpoint = source.options.get("endpoint", _ENDPOINT).rstrip("/")
        super().__init__(
            self._download(self._address.path),
            environment,
            token_variable=_TOKEN,
            denied_remedy=f"set {_TOKEN} to a token of an account that may read the repository",
        )
        self.model = model_name(self._address.path)
        if self._token is not None:
            self._client.cookies.set(_SESSION_COOKIE, self._token, domain=self._url.host)

    @override
    def describe(self, name: str) -> str:
        """Return the file's address on the hub."""
        where = self._address
        return f"ms://{where.repository}@{where.revision}/{self._path_of(name)}"

    @override
    def _url_of(self, name: str) -> httpx.URL:
        return httpx.URL(self._download(self._path_of(name)))

    def _path_of(self, name: str) -> str:
        path = PurePosixPath(self._address.path)
        return str(path if name == self.model else path.parent / name)

    def _download(self, path: str) -> str:
        where = self._address
        query = f"Revision={quote_plus(where.revision)}&FilePath={quote_plus(path)}"
        return f"{self._endpoint}/api/v1/models/{where.repository}/repo?{query}"


def _address(uri: str) -> _Address:
    owner, _, rest = uri.partition("://")[2].partition("/")
    repository, _, path = rest.partition("/")
    name, _, revision = repository.partition("@")
    if not owner or not name or not path.strip("/") or path.endswith("/"):
        raise SourceError(
            "the address does not name a file",
            where=redact(uri),
            remedy="write ms://OWNER/REPOSITORY/PATH/model.onnx",
            reason=SourceReason.NOT_FOUND,
        )
    return _Address(f"{owner}/{name}", revision or _REVISION, path)
