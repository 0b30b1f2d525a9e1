"""A session with an OCI registry. oras handles references, TLS and logins; Enginesmith sets the time limits.

Credentials are those of container tools: config.json in the folder DOCKER_CONFIG, else in `.docker` of the home. The
folder of a Secret of the type kubernetes.io/dockerconfigjson has them as `.dockerconfigjson`.
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
"""Status codes of a response that denies access."""

Body = Callable[[], IO[bytes]] | bytes
"""A file is passed as a function that opens it, because a request with a challenge is sent twice."""

_CONFIGURATIONS: Final = ("config.json", ".dockerconfigjson")
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
# Timeouts in seconds to connect, and between two parts of a response.
_TIMEOUTS: Final = (15.0, 60.0)


class LoginMissingError(ValueError):
    """The registry asks for a password, and none is configured."""


class RegistrySession:
    """One repository of one registry. Create it with `open_session`.

    It uses the authentication of oras but sends requests itself, because requests of oras retry for minutes, read whole
    files into memory and use a read token for a write after a read.

    Attributes:
        container: Reference of oras, which creates URLs.
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
    ) -> Any:  # noqa: ANN401 - a Response of requests, untyped in oras
        """Send a request, and repeat it with a new token if the registry asks for one. Return the response.

        Args:
            method: HTTP method.
            url: URL with or without a scheme.
            headers: Headers without authorization.
            body: Body of the request.
            stream: Whether the body of the response is read later in chunks.

        Raises:
            Exception: An error of requests or urllib3 if the registry does not answer.
        """
        url = url if "://" in url else f"{self._registry.prefix}://{url}"
        auth = self._registry.auth
        known = auth.get_auth_header() if self._is_authenticated() else {}
        response = self._send(method, url, body, {**headers, **known}, stream=stream)
        # Some registries respond 403 to an old token. A body is not sent twice in this case.
        if response.status_code not in (DENIED if body is None else {_UNAUTHORIZED}):
            return response
        # Each kind of access has its own token, and oras would send the old one again.
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


def say_answer(response: Any) -> str:  # noqa: ANN401 - a Response of requests, untyped in oras
    """Return the response of a registry as text: the status code and, if there is one, its error (`CODE message`)."""
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
        reference: Reference without a scheme.
        plain_http: Whether to use no TLS. A registry on this machine never uses TLS.
        login: User and password; None to use config.json.
        configuration: Folder of config.json or .dockerconfigjson. If it is None or has neither, the default of
            container tools is used.

    Raises:
        ImportError: oras is not installed.
        LoginMissingError: The registry needs a password, and none is configured.
        Exception: An error of oras or requests if the registry does not answer.
    """
    import oras.provider  # noqa: PLC0415 - an optional dependency

    host = reference.partition("/")[0]
    insecure = plain_http or host.rpartition(":")[0] in _LOOPBACK or host in _LOOPBACK
    registry = oras.provider.Registry(host, insecure=insecure)
    # oras has no argument for timeouts, and without them a registry that does not respond would block forever.
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
    """Return the paths of configurations. oras would only look in the home folder, and a pod may have no home."""
    variable = os.environ.get("DOCKER_CONFIG")
    try:
        folder = Path(variable) if variable else Path.home() / ".docker"
    except RuntimeError:
        folder = None
    paths = [each / name for each in (named, folder) if each is not None for name in _CONFIGURATIONS]
    return [str(path) for path in paths if path.exists()][:1]
