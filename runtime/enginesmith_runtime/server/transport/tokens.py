"""Bearer tokens: which client may call, by a folder of files that may be replaced while the server runs."""

import hmac
import logging
import secrets
import time
from pathlib import Path
from typing import Final

from enginesmith_contract.errors import ServeError
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.file_stamps import Stamp, stamp

__all__ = ["Tokens"]

_log = logging.getLogger(__name__)

_SCHEME: Final = "bearer"
_LOOK_SECONDS: Final = 1.0
"""Between two looks at whether the files have changed."""

_TELL_SECONDS: Final = 10.0
"""Between two lines of the log about calls that were refused."""

_State = tuple[tuple[str, Stamp | None], ...]


class Tokens:
    """The clients of a server. Safe from any thread.

    A file is named after its client and has its token, or several, one a line: while a client changes to a new token,
    the old one may stay.

    A token is looked up by a keyed hash with a key of this process alone. So how long that takes says nothing of the
    tokens that there are, however many they are.

    Args:
        folder: of the files; a mounted Secret.

    Attributes:
        refused: calls that were refused.

    Raises:
        ServeError: there is no token, or a file has none.
    """

    def __init__(self, folder: Path) -> None:
        self.refused = 0
        self._folder = folder
        self._key = secrets.token_bytes(32)
        try:
            self._state = _read_state(folder)
            self._clients, wrong = self._load()
        except OSError as error:
            raise _unusable(folder, error.strerror or str(error)) from error
        if wrong or not self._clients:
            raise _unusable(folder, wrong[0] if wrong else "it has no file")
        self._look_at = time.monotonic() + _LOOK_SECONDS
        self._tell_at = 0.0

    def admit(self, authorization: str | None) -> str | ProtocolError:
        """Return the name of the client that sends an `authorization` header, or why its call is refused."""
        client = self.find(authorization)
        if client is not None:
            return client
        self.refused += 1
        now = time.monotonic()
        if now >= self._tell_at:
            self._tell_at = now + _TELL_SECONDS
            _log.warning("calls without a valid token were refused: %d since the start", self.refused)
        found = "has no valid one" if authorization else "has none"
        return ProtocolError(
            Code.UNAUTHENTICATED,
            f"the call needs a token and {found}; send the header 'authorization: Bearer TOKEN' with a token of "
            "serving.auth.tokensSecretName",
        )

    def find(self, authorization: str | None) -> str | None:
        """Return the name of the client that sends an `authorization` header; None: it is none of them."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            self._reload()
        scheme, _, token = (authorization or "").partition(" ")
        return self._clients.get(self._hash(token.strip())) if scheme.lower() == _SCHEME else None

    def _hash(self, token: str) -> bytes:
        return hmac.digest(self._key, token.encode(), "sha256")

    def _reload(self) -> None:
        try:
            state = _read_state(self._folder)
            if state == self._state:
                return
            self._clients, wrong = self._load()
        except OSError as error:
            # The files are being replaced; the next look finds them.
            _log.warning("the tokens cannot be read, those before stay: %s", error)
            return
        self._state = state
        _log.info("the tokens were read again: %d clients", len(set(self._clients.values())))
        for problem in wrong:
            _log.warning("%s", problem)

    def _load(self) -> tuple[dict[bytes, str], list[str]]:
        """Return the client of each token by its hash, and what is wrong with the others."""
        clients: dict[bytes, str] = {}
        wrong: list[str] = []
        for name, _ in _read_state(self._folder):
            text = (self._folder / name).read_text(encoding="utf-8", errors="replace")
            if not text.split():
                wrong.append(f"the token of client '{name}' is empty")
            if not text.isascii():
                wrong.append(f"the token of client '{name}' has a letter that is not ASCII, which no header carries")
            for token in text.split():
                client = clients.setdefault(self._hash(token), name)
                if client != name:
                    wrong.append(f"clients '{client}' and '{name}' have the same token")
        return clients, wrong


def _read_state(folder: Path) -> _State:
    """Return the names of the files, each with what changes with it; a Secret has hidden ones, which are not tokens."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
    return tuple((name, stamp(folder / name)) for name in names)


def _unusable(folder: Path, why: str) -> ServeError:
    return ServeError(
        "there are no tokens to check calls with",
        where=str(folder),
        why=why,
        remedy="have one file (a key of the Secret) for each client, with its token: kubectl create secret generic "
        "NAME --from-literal=CLIENT=TOKEN",
        reason="TokensUnusable",
    )
