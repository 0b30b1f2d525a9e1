"""A session with an OCI registry: references, TLS and logins as oras knows them, with time limits of our own.

Credentials are the container tools': config.json in the folder that DOCKER_CONFIG names, else in the home's `.docker`.
The folder of a Secret of the type kubernetes.io/dockerconfigjson has them as `.dockerconfigjson`.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

__all__ = ["DENIED", "NOT_FOUND", "Body", "LoginMissingError", "RegistrySession", "open_session", "say_answer"]

NOT_FOUND: Final = 404
_UNAUTHORIZED: Final = 401
DENIED: Final = frozenset({_UNAUTHORIZED, 403})
"""Status codes of an answer that refuses access."""

Body = Callable[[], IO[bytes]] | bytes
"""A file is given as a function that opens it, since a request that meets a challenge is sent twice."""

_CONFIGURATIONS: Final = ("config.json", ".dockerconfigjson")
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
# To connect, and between two pieces of an answer; in seconds.
_TIMEOUTS: Final = (15.0, 60.0)


class LoginMissingError(ValueError):
    """The registry asks for a password, and none is configured."""


class RegistrySession:
    """One repository of one registry; made by `open_session`.

    Authentication is oras'. Its own requests retry for minutes, read whole files into memory and present a token for
    reading when a write follows a read, so requests are made here.

    Attributes:
        container: oras' reference, which makes URLs.
    """

    def __init__(self, registry: Any, container: Any) -> None:  # noqa: ANN401 - oras has no types
        self._registry = registry
        self.container = container

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: Body | None = None,
        stream: bool = False,
    ) -> Any:  # noqa: ANN401 - requests' Response, which oras hands on untyped
        """Send a request, and once more with a new token where the registry asks for one; return the answer.

        Args:
            method: of HTTP.
            url: with or without a scheme.
            headers: without authorization.
            body: what to send.
            stream: whether the answer's body is read later, in chunks.

        Raises:
            Exception: whatever requests and urllib3 raise where the registry does not answer.
        """
        url = url if "://" in url else f"{self._registry.prefix}://{url}"
        auth = self._registry.auth
        known = auth.get_auth_header() if self._is_authenticated() else {}
        response = self._send(method, url, body, {**headers, **known}, stream=stream)
        # Some registries answer 403 to an old token; a body is not sent twice for that.
        if response.status_code not in (DENIED if body is None else {_UNAUTHORIZED}):
            return response
        # Each kind of access has a token of its own, and oras would present the old one again.
        asked, changed = auth.authenticate_request(response, dict(headers), refresh=True)
        if not changed:
            return response
        response.close()
        return self._send(method, url, body, asked, stream=stream)

    def _send(self, method: str, url: str, body: Body | None, headers: Mapping[str, str], *, stream: bool) -> Any:  # noqa: ANN401 - the same
        session = self._registry.session
        if callable(body):
            with body() as opened:
                return session.request(method, url, data=opened, headers=headers, stream=stream)
        return session.request(method, url, data=body, headers=headers, stream=stream)

    def _is_authenticated(self) -> bool:
        auth = self._registry.auth
        return bool(getattr(auth, "token", None) or (not hasattr(auth, "token") and hasattr(auth, "_basic_auth")))


def say_answer(response: Any) -> str:  # noqa: ANN401 - requests' Response, which oras hands on untyped
    """Return what a registry answered: the status code and, where it has some, its own words (`CODE message`)."""
    said = f"the registry answered {response.status_code}"
    try:
        errors = response.json()["errors"]
        return f"{said}: " + "; ".join(f"{one['code']} {one.get('message', '')}".strip() for one in errors)
    except (ValueError, KeyError, TypeError):
        return said


def open_session(
    reference: str, *, plain_http: bool, login: tuple[str, str] | None = None, configuration: Path | None = None
) -> RegistrySession:
    """Return a session for a reference ("host/repository:tag").

    Args:
        reference: without a scheme.
        plain_http: no TLS; a registry on this machine never has any.
        login: user and password; None: as config.json says.
        configuration: folder of config.json or .dockerconfigjson; None, or without either: where the container tools
            have it.

    Raises:
        ImportError: oras is not installed.
        LoginMissingError: see there.
        Exception: whatever oras and requests raise where the registry does not answer.
    """
    import oras.provider  # noqa: PLC0415 - an optional dependency

    host = reference.partition("/")[0]
    insecure = plain_http or host.rpartition(":")[0] in _LOOPBACK or host in _LOOPBACK
    registry = oras.provider.Registry(host, insecure=insecure)
    # oras has no argument for time limits, and without them a silent registry would hold the work for ever.
    registry.session.request = partial(registry.session.request, timeout=_TIMEOUTS)
    challenge = registry.session.get(f"{registry.prefix}://{host}/v2/").headers.get("Www-Authenticate", "")
    wants_password = challenge.lower().startswith("basic")
    if wants_password:
        registry.auth = oras.auth.get_auth_backend("basic", registry.session, insecure)
    container = registry.get_container(reference)
    if login is None:
        registry.auth.load_configs(container, _configurations(configuration))
    else:
        registry.auth.set_basic_auth(*login)
    if wants_password and getattr(registry.auth, "_basic_auth", None) is None:
        raise LoginMissingError(f"it asks for a password, and none for {host} is configured")
    return RegistrySession(registry, container)


def _configurations(named: Path | None) -> list[str]:
    """Return config.json's path, which oras itself would seek in the home folder only; a pod may have no home."""
    variable = os.environ.get("DOCKER_CONFIG")
    try:
        folder = Path(variable) if variable else Path.home() / ".docker"
    except RuntimeError:
        folder = None
    paths = [each / name for each in (named, folder) if each is not None for name in _CONFIGURATIONS]
    return [str(path) for path in paths if path.exists()][:1]
