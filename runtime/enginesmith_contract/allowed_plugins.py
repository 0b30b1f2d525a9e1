"""Which plugin libraries a pod may load: the value of ENGINESMITH_PLUGINS_ALLOWED.

A builder knows where a library comes from and which one it is, a server only which one it is. So a server takes an
engine's libraries for allowed where the value names places: they were held against those when the engine was built.
"""

import re
from collections.abc import Iterable
from typing import Final, Self

from enginesmith_contract.record import Record

__all__ = ["AllowedPlugins"]

_SEPARATORS: Final = re.compile(r"[\s,]+")
_DIGEST: Final = "sha256:"


class AllowedPlugins(Record):
    """What may be loaded; a library needs one of both.

    Attributes:
        places: what its URI may begin with.
        digests: SHA-256 of its bytes.
    """

    places: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()

    @classmethod
    def from_text(cls, text: str | None) -> Self | None:
        """Return what the variable says; None: it is not set, and anything may be loaded."""
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
