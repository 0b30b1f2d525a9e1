"""Which plugin libraries a pod may load: the value of ENGINESMITH_PLUGINS_ALLOWED.

A builder knows the URI and the digest of a library, and a server knows only the digest. If the value contains places, a
server therefore allows all libraries of an engine: the builder compared them with the places.
"""

import re
from collections.abc import Iterable
from typing import Final, Self

from enginesmith_contract.record import Record

__all__ = ["AllowedPlugins"]

_SEPARATORS: Final = re.compile(r"[\s,]+")
_DIGEST: Final = "sha256:"


class AllowedPlugins(Record):
    """Libraries that may be loaded. A library must match a place or a digest.

    Attributes:
        places: Allowed prefixes of the library's URI.
        digests: Allowed SHA-256 digests of the library file.
    """

    places: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()

    @classmethod
    def from_text(cls, text: str | None) -> Self | None:
        """Return the parsed value of the variable, or None if it is not set and any library may be loaded."""
        if text is None:
            return None
        entries = [entry for entry in _SEPARATORS.split(text) if entry]
        return cls(
            places=tuple(entry for entry in entries if not entry.startswith(_DIGEST)),
            digests=tuple(entry.removeprefix(_DIGEST).lower() for entry in entries if entry.startswith(_DIGEST)),
        )

    def to_text(self) -> str:
        """Return the variable's value."""
        return " ".join([*self.places, *(f"{_DIGEST}{digest}" for digest in self.digests)])

    def forbidden(self, digests: Iterable[str]) -> tuple[str, ...]:
        """Return those of an engine's libraries that a server may not load."""
        return () if self.places else tuple(digest for digest in digests if digest not in self.digests)
