"""Plugin libraries of a build: allowed, fetched and checked before a GPU does anything.

A library runs inside builder and server. The user who runs them sets ENGINESMITH_PLUGINS_ALLOWED to where libraries may
come from, or to which libraries are allowed; the digest, which is part of the engine's key, says which one it is.
"""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from enginesmith_contract.allowed_plugins import AllowedPlugins
from enginesmith_contract.build_request import BuildRequest, PluginLibrary
from enginesmith_contract.environment import PLUGINS_ALLOWED
from enginesmith_contract.errors import BuildError, SourceError, SpecError
from enginesmith_contract.preparation import ModelSource
from enginesmith_runtime.fetch.claims import in_mounted_claim
from enginesmith_runtime.fetch.library import fetch_library
from enginesmith_runtime.fetch.location import Scheme, local_path, model_name, redact, scheme_of
from enginesmith_runtime.fetch.reasons import SourceReason
from enginesmith_runtime.progress import Reporter

__all__ = ["PluginPlaces", "fetch_plugins", "is_allowed"]

_CLAIM: Final = "pvc"


@dataclass(frozen=True, kw_only=True)
class PluginPlaces:
    """Where libraries may come from, and where their addresses lead.

    Attributes:
        allowed: what their URIs may begin with; None: anything.
        digests: of libraries that may come from anywhere.
        base: the folder that relative paths start from; None: the working directory.
        variables: the environment, which says where volumes are mounted.
    """

    allowed: tuple[str, ...] | None = None
    digests: tuple[str, ...] = ()
    base: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, variables: Mapping[str, str], *, base: Path | None = None) -> Self:
        """Return what the environment says."""
        allowed = AllowedPlugins.from_text(variables.get(PLUGINS_ALLOWED))
        if allowed is None:
            return cls(base=base, variables=variables)
        return cls(allowed=allowed.places, digests=allowed.digests, base=base, variables=variables)


def fetch_plugins(request: BuildRequest, folder: Path, reporter: Reporter, places: PluginPlaces) -> tuple[Path, ...]:
    """Lay the request's plugin libraries out in `folder`, named with their number, since their order matters.

    Args:
        request: what is built.
        folder: made if need be.
        reporter: gets the stage "plugins" where there are any.
        places: where they may come from.

    Raises:
        BuildError: `KeyDiffers`: the digests are not those of the engine's key.
        SpecError: `PluginNotAllowed`.
        SourceError: `PluginMissing`, `DigestMismatch`, or why it cannot be had.
    """
    plugins = request.options.plugins
    _check_key(request)
    if not plugins:
        return ()
    for number, plugin in enumerate(plugins):
        if plugin.sha256 not in places.digests and not is_allowed(plugin.uri, places.allowed, places.base):
            raise _not_allowed(number, plugin, places)
    folder.mkdir(parents=True, exist_ok=True)
    reporter.begin("plugins", f"{len(plugins)}")
    paths = tuple(_fetch(number, plugin, folder, reporter, places) for number, plugin in enumerate(plugins))
    reporter.end(sizeBytes=sum(path.stat().st_size for path in paths))
    return paths


def is_allowed(uri: str, allowed: Sequence[str] | None, base: Path | None = None) -> bool:
    """Whether a URI lies at or below one of the allowed ones; `..`, `%2e` and links lead nowhere else."""
    if allowed is None:
        return True
    name = _canonical(uri, base)
    return any(_lies_below(name, _canonical(prefix, None)) for prefix in allowed)


def _fetch(number: int, plugin: PluginLibrary, folder: Path, reporter: Reporter, places: PluginPlaces) -> Path:
    name = model_name(urlsplit(plugin.uri).path if "://" in plugin.uri else plugin.uri)
    target = folder / f"{number:02}-{name}"
    try:
        source = in_mounted_claim(ModelSource(uri=plugin.uri, sha256=plugin.sha256), places.variables)
        fetch_library(source, target, reporter, base=places.base)
    except SourceError as error:
        missing = error.reason == SourceReason.NOT_FOUND
        raise SourceError(
            "the plugin library is missing" if missing else f"the plugin library cannot be had: {error.what}",
            where=f"build.plugins[{number}]: {error.where}",
            why=error.why,
            remedy=error.remedy,
            reason="PluginMissing" if missing else error.reason,
            retry=error.retry,
        ) from error
    return target


def _check_key(request: BuildRequest) -> None:
    named = tuple(plugin.sha256 for plugin in request.options.plugins)
    if named == request.key_inputs.plugins:
        return
    raise BuildError(
        "the plugin libraries are not those of the engine's key",
        where="build.plugins",
        why=f"the request names {len(named)}, the key {len(request.key_inputs.plugins)}, and their digests differ",
        remedy="use the same release of the operator and the builder",
        reason="KeyDiffers",
    )


def _not_allowed(number: int, plugin: PluginLibrary, places: PluginPlaces) -> SpecError:
    why = f"libraries may come from {', '.join(places.allowed or ()) or 'nowhere'} ({PLUGINS_ALLOWED})"
    remedy = "put the library there, or ask the administrator of the builders to allow its place"
    if not places.allowed:
        why = f"its digest {plugin.sha256[:12]} is not among those that are ({PLUGINS_ALLOWED})"
        remedy = "ask the administrator of the builders to allow its digest"
    return SpecError(
        "the plugin library is not allowed here",
        where=f"build.plugins[{number}]: {redact(plugin.uri)}",
        why=why,
        remedy=remedy,
        reason="PluginNotAllowed",
    )


def _canonical(uri: str, base: Path | None) -> str:
    """Return a URI as a comparison needs it: no user, no query, no detours; a path as a file:// URI."""
    parts = urlsplit(uri)
    scheme = _CLAIM if parts.scheme == _CLAIM else scheme_of(uri).value
    if scheme == Scheme.FILE:
        return f"file://{local_path(uri, base).resolve().as_posix()}"
    path = posixpath.normpath("/" + unquote(parts.path)).lstrip("/")
    return f"{scheme}://{parts.netloc.rpartition('@')[2].lower()}/{path}"


def _lies_below(name: str, prefix: str) -> bool:
    above = prefix.rstrip("/")
    # A registry names the version of one repository behind ":" or "@".
    ends = "/:@" if name.startswith(f"{Scheme.OCI}://") else "/"
    return name == above or (name.startswith(above) and name[len(above)] in ends)
