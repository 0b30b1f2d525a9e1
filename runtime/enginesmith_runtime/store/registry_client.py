"""The calls of the OCI distribution API that a store needs, with StoreErrors."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urljoin

from enginesmith_contract.errors import EnginesmithError, StoreError
from enginesmith_contract.text import one_line
from enginesmith_runtime.connection_limits import refusals_explained
from enginesmith_runtime.registry_session import (
    DENIED,
    NOT_FOUND,
    Body,
    LoginMissingError,
    RegistrySession,
    open_session,
    say_answer,
)
from enginesmith_runtime.storage_clients import REGISTRY
from enginesmith_runtime.store.address import StoreAddress
from enginesmith_runtime.store.failures import access_denied, client_missing, connection_lost
from enginesmith_runtime.store.settings import StoreSettings

__all__ = ["MANIFEST_TYPE", "RegistryClient", "open_file"]

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
_CREDENTIALS: Final = f"REGISTRY_USERNAME and REGISTRY_PASSWORD, or {REGISTRY.credentials}"
_READ_BYTES: Final = 1 << 20
_TAGS_A_PAGE: Final = 1000
_OK: Final = frozenset({200, 201, 202})
_NOT_ALLOWED: Final = 405


class RegistryClient:
    """One repository. Errors except "not found" are StoreErrors: `AccessDenied`, `ConnectionLost`, `MissingClient`."""

    def __init__(self, address: StoreAddress, settings: StoreSettings) -> None:
        self._where = address.uri
        self._plain_http = settings.plain_http
        user, password = settings.get("REGISTRY_USERNAME"), settings.get("REGISTRY_PASSWORD")
        self._login = (user, password) if user and password else None
        self._configuration = settings.docker_config
        self._host, _, self._repository = address.location.partition("/")
        self._session: RegistrySession | None = None

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob of this SHA-256."""
        return self._ask("HEAD", f"blobs/sha256:{digest}", "looking a blob up") is not None

    @contextmanager
    def open_blob(self, digest: str) -> Iterator[Iterator[bytes] | None]:
        """Yield a blob's bytes in chunks, or None if the blob does not exist."""
        response = self._ask("GET", f"blobs/sha256:{digest}", "reading a blob", stream=True)
        if response is None:
            yield None
            return
        with response:
            yield self._chunks(response)

    def put_blob(self, digest: str, body: Body) -> None:
        """Upload a blob. The registry checks the digest before the blob is visible."""
        doing = "storing a blob"
        begun = self._need("POST", "blobs/uploads/", doing)
        place = urljoin(begun.url, begun.headers.get("Location", ""))
        separator = "&" if "?" in place else "?"
        headers = {"Content-Type": "application/octet-stream"}
        self._need("PUT", f"{place}{separator}digest=sha256:{digest}", doing, body=body, headers=headers)

    def read_manifest(self, reference: str) -> tuple[str, bytes] | None:
        """Return digest and bytes of the manifest with a tag or digest, or None if it does not exist."""
        response = self._ask("GET", f"manifests/{reference}", "reading a manifest", headers={"Accept": MANIFEST_TYPE})
        if response is None:
            return None
        return response.headers.get("Docker-Content-Digest", ""), bytes(response.content)

    def put_manifest(self, tag: str, document: bytes) -> None:
        """Write a manifest whose blobs all exist, and set the tag."""
        headers = {"Content-Type": MANIFEST_TYPE}
        self._need("PUT", f"manifests/{tag}", "writing a manifest", body=document, headers=headers)

    def delete_manifest(self, digest: str) -> None:
        """Delete a manifest and its tags. The registry's garbage collection deletes its blobs."""
        try:
            self._ask("DELETE", f"manifests/{digest}", "deleting a manifest")
        except StoreError as error:
            if str(_NOT_ALLOWED) not in error.why:
                raise
            raise StoreError(
                "the registry does not allow deletion",
                where=self._where,
                why=error.why,
                remedy="enable deletion in the registry's configuration, or use its own retention",
                reason="DeleteUnsupported",
            ) from error

    def list_tags(self) -> Iterator[str]:
        """Yield every tag, page by page. A missing repository has no tags."""
        path: str | None = f"tags/list?n={_TAGS_A_PAGE}"
        while path is not None:
            response = self._ask("GET", path, "listing tags")
            if response is None:
                return
            yield from response.json().get("tags") or ()
            following = response.links.get("next", {}).get("url")
            path = urljoin(response.url, following) if following else None

    def _need(
        self, method: str, path: str, doing: str, *, body: Body | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        response = self._ask(method, path, doing, body=body, headers=headers)
        if response is None:
            raise connection_lost(self._where, doing, f"the registry answered {NOT_FOUND}")
        return response

    def _ask(
        self,
        method: str,
        path: str,
        doing: str,
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
    ) -> Any:
        with self._translated(doing):
            response = self._send(method, path, body, headers or {}, stream=stream)
        if response.status_code in _OK:
            return response
        why = say_answer(response)
        response.close()
        if response.status_code == NOT_FOUND:
            return None
        if response.status_code in DENIED:
            raise access_denied(self._where, doing, why, _CREDENTIALS)
        raise connection_lost(self._where, doing, why)

    def _send(self, method: str, path: str, body: Body | None, headers: Mapping[str, str], *, stream: bool) -> Any:
        if self._session is None:
            self._session = open_session(
                f"{self._host}/{self._repository}",
                plain_http=self._plain_http,
                login=self._login,
                configuration=self._configuration,
            )
        url = path if "://" in path else f"{self._host}/v2/{self._repository}/{path}"
        return self._session.request(method, url, headers=headers, body=body, stream=stream)

    def _chunks(self, response: Any) -> Iterator[bytes]:
        chunks = response.iter_content(_READ_BYTES)
        while True:
            with self._translated("reading a blob"):
                chunk = next(chunks, b"")
            if not chunk:
                return
            yield chunk

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        with refusals_explained(self._where, StoreError):
            try:
                yield
            except EnginesmithError:
                raise
            except ImportError as error:
                raise client_missing(self._where, REGISTRY, error) from error
            except LoginMissingError as error:
                raise access_denied(self._where, doing, str(error), _CREDENTIALS) from error
            except Exception as error:  # exceptions of requests, urllib3 and oras
                raise connection_lost(self._where, doing, one_line(str(error))) from error


def open_file(path: Path) -> Callable[[], IO[bytes]]:
    """Return a function that opens a file for an upload."""
    return lambda: path.open("rb")
