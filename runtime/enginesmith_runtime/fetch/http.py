"""Models over http(s), with range requests to resume and entity tags to detect a changed file.

Credentials come from the environment: a netrc file (NETRC), user and password in the URI, or a bearer token.
"""

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import httpx

from enginesmith_contract.environment import SOURCE_TOKEN
from enginesmith_contract.errors import SourceError
from enginesmith_runtime.connection_limits import refusal_of_host, refusals_explained
from enginesmith_runtime.fetch.location import model_name, redact
from enginesmith_runtime.fetch.origin import Transfer
from enginesmith_runtime.fetch.reasons import SourceReason

__all__ = ["HttpOrigin"]

_TIMEOUT: Final = httpx.Timeout(60.0, connect=15.0)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_NOT_FOUND: Final = frozenset({404, 410})
_DENIED: Final = frozenset({401, 403, 407})
_PARTIAL: Final = 206
_RANGE_NOT_SATISFIABLE: Final = 416
_FIRST_ERROR: Final = 400
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class HttpOrigin:
    """The folder of a model on a web server.

    Attributes:
        model: File name of the model.
    """

    def __init__(
        self,
        uri: str,
        environment: Mapping[str, str] = os.environ,
        *,
        token_variable: str = SOURCE_TOKEN,
        denied_remedy: str = f"set {SOURCE_TOKEN} or a netrc file; a signed address may have expired",
    ) -> None:
        """Open the client without a request.

        Args:
            uri: URI of the model.
            environment: Environment with the credentials.
            token_variable: Name of the variable with the bearer token.
            denied_remedy: Remedy if the server refuses access.

        Raises:
            enginesmith_contract.errors.SourceError: `NotFound` if it is not a URL.
        """
        self._denied_remedy = denied_remedy
        try:
            self._url = httpx.URL(uri)
        except httpx.InvalidURL as error:
            raise SourceError("this is not a URL", where=redact(uri), reason=SourceReason.NOT_FOUND) from error
        self.model = model_name(self._url.raw_path.partition(b"?")[0].decode())
        # Request no encoding, so that lengths and ranges count the bytes of the file.
        headers = {"Accept-Encoding": "identity", "User-Agent": "enginesmith"}
        token = environment.get(token_variable)
        # With plain HTTP the token would be readable on the network.
        is_private = self._url.scheme == "https" or self._url.host in _LOOPBACK
        self._token = token if token and is_private else None
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        # The client also calls the hook for every redirect.
        hooks = {"request": [_refuse_host]}
        self._client = httpx.Client(follow_redirects=True, timeout=_TIMEOUT, headers=headers, event_hooks=hooks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def describe(self, name: str) -> str:
        """Return the file's address without user, password and query."""
        return redact(str(self._url_of(name)))

    @contextmanager
    def open(self, name: str, *, offset: int, validator: str | None) -> Iterator[Transfer]:
        """Request a file; see `Origin.open`."""
        where = self.describe(name)
        headers = {"Range": f"bytes={offset}-", "If-Range": validator} if offset and validator else {}
        with (
            refusals_explained(where, SourceError),
            _translated(where),
            self._client.stream("GET", self._url_of(name), headers=headers) as response,
        ):
            if response.status_code == _RANGE_NOT_SATISFIABLE and offset:
                # Either all bytes were received before the connection broke, or the file shrank. Start again to be
                # sure.
                with self.open(name, offset=0, validator=None) as transfer:
                    yield transfer
                return
            _check_status(response, where, self._denied_remedy)
            yield _transfer(response, offset)

    def _url_of(self, name: str) -> httpx.URL:
        if name == self.model:
            return self._url
        raw, _, query = self._url.raw_path.partition(b"?")
        folder = raw.rpartition(b"/")[0]
        path = folder + b"/" + quote(name).encode()
        return self._url.copy_with(raw_path=path + (b"?" + query if query else b""))


def _refuse_host(request: httpx.Request) -> None:
    url = request.url
    refusal = refusal_of_host(url.host, url.port or (443 if url.scheme == "https" else 80))
    if refusal is not None:
        raise refusal


def _transfer(response: httpx.Response, offset: int) -> Transfer:
    start = offset if response.status_code == _PARTIAL else 0
    length = response.headers.get("Content-Length")
    # The length of an encoded body is not the length of the file.
    plain = "Content-Encoding" not in response.headers
    total = start + int(length) if length and plain else None
    if response.status_code == _PARTIAL and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise SourceError(
            "the server sent another range than requested",
            where=redact(str(response.url)),
            reason=SourceReason.TRUNCATED,
        )
    return Transfer(
        offset=start,
        total_bytes=total,
        validator=_validator(response) if plain else None,
        # Read chunks as they arrive, because an incomplete larger chunk would be lost if the connection breaks.
        chunks=response.iter_bytes(),
    )


def _validator(response: httpx.Response) -> str | None:
    """Return the value for If-Range: a strong entity tag, or the date of the last change (RFC 9110, 13.1.5)."""
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return str(tag)
    modified = response.headers.get("Last-Modified")
    return str(modified) if modified else None


def _check_status(response: httpx.Response, where: str, denied_remedy: str) -> None:
    status = response.status_code
    if status < _FIRST_ERROR:
        return
    answer = f"the server answered {status} {response.reason_phrase}".rstrip()
    if status in _NOT_FOUND:
        raise SourceError(
            "there is no such model",
            where=where,
            why=answer,
            remedy="check the address",
            reason=SourceReason.NOT_FOUND,
        )
    if status in _DENIED:
        raise SourceError(
            "the server denies access to the model",
            where=where,
            why=answer,
            remedy=denied_remedy,
            reason=SourceReason.ACCESS_DENIED,
        )
    raise SourceError(
        "the server did not send the model",
        where=where,
        why=answer,
        remedy="try again later" if status in _TRANSIENT else "check the address",
        reason=SourceReason.CONNECTION_LOST if status in _TRANSIENT else "",
        retry=status in _TRANSIENT,
    )


@contextmanager
def _translated(where: str) -> Iterator[None]:
    try:
        yield
    except httpx.RemoteProtocolError as error:
        raise SourceError(
            "the server ended the connection early",
            where=where,
            why=redact(str(error)),
            remedy="try again: the download resumes; if it repeats, the file at the source is damaged",
            reason=SourceReason.TRUNCATED,
            retry=True,
        ) from error
    except httpx.TransportError as error:
        certificate = isinstance(error.__context__, ssl.SSLCertVerificationError) or "CERTIFICATE" in str(error)
        raise SourceError(
            "the connection failed" if not certificate else "the server's certificate is not trusted",
            where=where,
            why=redact(str(error)) or type(error).__name__,
            remedy="set SSL_CERT_FILE to the certificate of the authority"
            if certificate
            else "try again: the download resumes",
            reason=SourceReason.CONNECTION_LOST,
            retry=not certificate,
        ) from error
    except (httpx.InvalidURL, httpx.TooManyRedirects, httpx.DecodingError) as error:
        raise SourceError("the address cannot be read", where=where, why=redact(str(error))) from error
