"""The few calls of the OCI distribution API that a store needs, with errors in its words.

Authentication is oras': its `push` and `pull` would read whole files into memory, retry for minutes and present a token
for reading when a write follows a read, so the requests are made here.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urljoin

from enginesmith_contract.errors import EnginesmithError, StoreError
from enginesmith_contract.text import one_line
from enginesmith_runtime.registry_session import LoginMissingError, open_session
from enginesmith_runtime.store.address import StoreAddress
from enginesmith_runtime.store.failures import access_denied, client_missing, connection_lost
from enginesmith_runtime.store.settings import StoreSettings

__all__ = ["MANIFEST_TYPE", "RegistryClient", "open_file"]

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
_CREDENTIALS: Final = (
    "REGISTRY_USERNAME and REGISTRY_PASSWORD, or the folder of a container tool's config.json in DOCKER_CONFIG"
)
_READ_BYTES: Final = 1 << 20
_TAGS_A_PAGE: Final = 1000
_OK: Final = frozenset({200, 201, 202})
_NOT_FOUND: Final = 404
_UNAUTHORIZED: Final = 401
_NOT_ALLOWED: Final = 405
_DENIED: Final = frozenset({401, 403})

Body = Callable[[], IO[bytes]] | bytes
"""A file is given as a function that opens it, since a request that meets a challenge is sent twice."""


class RegistryClient:
    """One repository. Any error but "not found" is a StoreError: `AccessDenied`, `ConnectionLost`, `MissingClient`."""

    def __init__(self, address: StoreAddress, settings: StoreSettings) -> None:
        self._where = address.uri
        self._plain_http = settings.plain_http
        user, password = settings.get("REGISTRY_USERNAME"), settings.get("REGISTRY_PASSWORD")
        self._login = (user, password) if user and password else None
        self._configuration = settings.docker_config
        self._host, _, self._repository = address.location.partition("/")
        self._session: Any = None

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob of this SHA-256."""
        return self._ask("HEAD", f"blobs/sha256:{digest}", "looking a blob up") is not None

    @contextmanager
    def open_blob(self, digest: str) -> Iterator[Iterator[bytes] | None]:
        """Give a blob's bytes in chunks; None where there is none."""
        response = self._ask("GET", f"blobs/sha256:{digest}", "reading a blob", stream=True)
        if response is None:
            yield None
            return
        with response:
            yield self._chunks(response)

    def put_blob(self, digest: str, body: Body) -> None:
        """Upload a blob; the registry checks the digest before it shows it."""
        doing = "storing a blob"
        begun = self._need("POST", "blobs/uploads/", doing)
        place = urljoin(begun.url, begun.headers.get("Location", ""))
        separator = "&" if "?" in place else "?"
        headers = {"Content-Type": "application/octet-stream"}
        self._need("PUT", f"{place}{separator}digest=sha256:{digest}", doing, body=body, headers=headers)

    def read_manifest(self, reference: str) -> tuple[str, bytes] | None:
        """Return digest and bytes of the manifest at a tag or digest; None where there is none."""
        response = self._ask("GET", f"manifests/{reference}", "reading a manifest", headers={"Accept": MANIFEST_TYPE})
        if response is None:
            return None
        return response.headers.get("Docker-Content-Digest", ""), bytes(response.content)

    def put_manifest(self, tag: str, document: bytes) -> None:
        """Write a manifest, all of whose blobs are there, and let the tag name it."""
        headers = {"Content-Type": MANIFEST_TYPE}
        self._need("PUT", f"manifests/{tag}", "writing a manifest", body=document, headers=headers)

    def delete_manifest(self, digest: str) -> None:
        """Delete a manifest and its tags; its blobs are the registry's own garbage collection's business."""
        try:
            self._ask("DELETE", f"manifests/{digest}", "deleting a manifest")
        except StoreError as error:
            if str(_NOT_ALLOWED) not in error.why:
                raise
            raise StoreError(
                "the registry does not let anybody delete",
                where=self._where,
                why=error.why,
                remedy="switch deleting on in the registry's configuration, or let its own retention delete",
                reason="DeleteUnsupported",
            ) from error

    def list_tags(self) -> Iterator[str]:
        """Yield every tag, page by page; none for a repository that does not exist yet."""
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
            raise connection_lost(self._where, doing, f"the registry answered {_NOT_FOUND}")
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
        why = f"the registry answered {response.status_code}{_words(response)}"
        response.close()
        if response.status_code == _NOT_FOUND:
            return None
        if response.status_code in _DENIED:
            raise access_denied(self._where, doing, why, _CREDENTIALS)
        raise connection_lost(self._where, doing, why)

    def _send(self, method: str, path: str, body: Body | None, headers: Mapping[str, str], *, stream: bool) -> Any:
        if self._session is None:
            self._session, _ = open_session(
                f"{self._host}/{self._repository}",
                plain_http=self._plain_http,
                login=self._login,
                configuration=self._configuration,
            )
        session = self._session
        url = path if "://" in path else f"{session.prefix}://{self._host}/v2/{self._repository}/{path}"
        known = session.auth.get_auth_header() if self._is_authenticated() else {}
        response = self._send_once(method, url, body, {**headers, **known}, stream=stream)
        if response.status_code != _UNAUTHORIZED:
            return response
        # Each kind of access has a token of its own, and oras would present the old one again.
        asked, changed = session.auth.authenticate_request(response, dict(headers), refresh=True)
        if not changed:
            return response
        response.close()
        return self._send_once(method, url, body, asked, stream=stream)

    def _send_once(self, method: str, url: str, body: Body | None, headers: Mapping[str, str], *, stream: bool) -> Any:
        if callable(body):
            with body() as opened:
                return self._session.session.request(method, url, data=opened, headers=headers, stream=stream)
        return self._session.session.request(method, url, data=body, headers=headers, stream=stream)

    def _is_authenticated(self) -> bool:
        auth = self._session.auth
        return bool(getattr(auth, "token", None) or (not hasattr(auth, "token") and hasattr(auth, "_basic_auth")))

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
        try:
            yield
        except EnginesmithError:
            raise
        except ImportError as error:
            raise client_missing(self._where, error.name or "oras") from error
        except LoginMissingError as error:
            raise access_denied(self._where, doing, str(error), _CREDENTIALS) from error
        except Exception as error:  # requests' and urllib3's own, and oras's
            raise connection_lost(self._where, doing, one_line(str(error))) from error


def open_file(path: Path) -> Callable[[], IO[bytes]]:
    """Return what opens a file for an upload."""
    return lambda: path.open("rb")


def _words(response: Any) -> str:
    """Return the registry's own words, `: CODE message`; nothing where it has none."""
    try:
        errors = response.json()["errors"]
        return ": " + "; ".join(f"{one['code']} {one.get('message', '')}".strip() for one in errors)
    except (ValueError, KeyError, TypeError):
        return ""
