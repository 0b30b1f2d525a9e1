"""Converts names of pointers to tags of a registry and back.

A tag has letters, digits, `_`, `.` and `-`, at most 128 of them, and does not begin with `.` or `-`; a pointer's name
has folders. A slash becomes `__` and an underscore `_-`, so that every tag has one name and every name one tag:

    keys/<engine key>.json                  keys__<engine key>
    timing-caches/10.13.3.9/NVIDIA-L4.json  timing-caches__10.13.3.9__NVIDIA-L4
"""

import re
from typing import Final

from enginesmith_runtime.store.failures import name_refused

__all__ = ["name_of_tag", "tag_of_name"]

_SUFFIX: Final = ".json"
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_ESCAPES: Final = {"__": "/", "_-": "_"}


def tag_of_name(where: str, name: str) -> str:
    """Return the tag of a pointer's name.

    Raises:
        enginesmith_contract.errors.StoreError: `InvalidName` if the name has no valid tag.
    """
    tag = name.removesuffix(_SUFFIX).replace("_", "_-").replace("/", "__")
    if not name.endswith(_SUFFIX) or ".." in name.split("/") or name.startswith("/") or not _TAG.fullmatch(tag):
        raise name_refused(where, name)
    return tag


def name_of_tag(tag: str) -> str | None:
    """Return the name of the pointer with this tag, or None if the tag is not that of a pointer."""
    if not re.fullmatch(r"(?:[^_]|__|_-)+", tag) or "__" not in tag:
        return None
    return re.sub(r"__|_-", lambda match: _ESCAPES[match[0]], tag) + _SUFFIX
