"""Credentials in files of a pod. Only the process that needs them reads them. They are not passed to children."""

import logging
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final

from enginesmith_contract import environment
from enginesmith_contract.reserved_variables import is_reserved

__all__ = ["read_credentials", "take_source_credentials", "without_credentials"]

_LOGGER: Final = logging.getLogger(__name__)


def read_credentials(folder: str | None) -> dict[str, str]:
    """Return the contents of a Secret's files by key, without the line end.

    Args:
        folder: Folder with the mounted Secret; None or empty if there is none.
    """
    if not folder:
        return {}
    # kubelet stores versions of a Secret in folders that begin with two dots.
    files = [path for path in sorted(Path(folder).glob("*")) if not path.name.startswith("..") and path.is_file()]
    return {path.name: path.read_text(encoding="utf-8", errors="replace").rstrip("\r\n") for path in files}


def take_source_credentials(variables: MutableMapping[str, str]) -> None:
    """Add the model source's credentials to the variables that its client reads. Existing variables are not changed.

    A key that would change what this process loads is ignored with a warning.

    Args:
        variables: Variables of this process, with the path of the folder.
    """
    for name, value in read_credentials(variables.get(environment.SOURCE_CREDENTIALS)).items():
        if is_reserved(name) or "\0" in value or "=" in name:
            _LOGGER.warning("the key %s of the model source's Secret is ignored: no user may set this variable", name)
            continue
        variables.setdefault(name, value)


def without_credentials(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a child that reads neither source nor store."""
    ours = {environment.SOURCE_CREDENTIALS, environment.STORE_CREDENTIALS, environment.SIGNING_KEY}
    ours |= set(read_credentials(variables.get(environment.SOURCE_CREDENTIALS)))
    return {name: value for name, value in variables.items() if name not in ours}
