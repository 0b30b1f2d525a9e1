"""A session with an OCI registry: references, TLS and logins as oras knows them, with time limits of our own.

Credentials are the container tools': config.json in the folder that DOCKER_CONFIG names, else in the home's `.docker`.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any, Final

__all__ = ["LoginMissingError", "open_session"]

_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
# To connect, and between two pieces of an answer; in seconds.
_TIMEOUTS: Final = (15.0, 60.0)


class LoginMissingError(ValueError):
    """The registry asks for a password, and none is configured."""


def open_session(
    reference: str, *, plain_http: bool, login: tuple[str, str] | None = None, configuration: Path | None = None
) -> tuple[Any, Any]:
    """Return oras' registry and container of a reference ("host/repository:tag").

    Args:
        reference: without a scheme.
        plain_http: no TLS; a registry on this machine never has any.
        login: user and password; None: as config.json says.
        configuration: folder of config.json; None: where the container tools have it.

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
    return registry, container


def _configurations(named: Path | None) -> list[str]:
    """Return config.json's path, which oras itself would seek in the home folder only; a pod may have no home."""
    variable = os.environ.get("DOCKER_CONFIG")
    try:
        folder = named or (Path(variable) if variable else Path.home() / ".docker")
    except RuntimeError:
        return []
    configuration = folder / "config.json"
    return [str(configuration)] if configuration.exists() else []
