"""Whether an object has to be written: by the hash of what was last wanted, and by what the live one says.

The hash, an annotation of the object itself, shows that Enginesmith wants something else than before; it also covers
fields that Enginesmith no longer wants. The comparison shows that another client changed a field that Enginesmith owns.
It compares only wanted fields and ignores defaults and the fields of other controllers. It compares quantities by their
amount.
"""

import json
from hashlib import sha256
from typing import Any, Final

from enginesmith_operator.api.quantities import quantity_value
from enginesmith_operator.cluster.transport import Json

__all__ = ["APPLIED_HASH", "WHOLE", "covers", "covers_field", "item_key", "must_apply", "stamp"]

APPLIED_HASH: Final = "enginesmith.io/applied-hash"
_DIGITS: Final = 16
_LIST_KEYS: Final = ("name", "containerPort", "port", "type", "key", "uid")
_QUANTITIES: Final = frozenset({"requests", "limits"})
"""Mappings whose values are quantities."""
_QUANTITY: Final = frozenset({"averageValue", "sizeLimit"})
"""Fields that are a quantity."""
WHOLE: Final = frozenset({"selector"})
"""Fields that the API server replaces as a whole, and in which a key added by another user excludes the pods."""
_TEXTS: Final = frozenset({"labels", "annotations", "matchLabels", "nodeSelector"})
"""Mappings with user-defined names, in which an empty text is a normal value."""


def stamp(desired: Json) -> Json:
    """Return the object with the hash of itself as an annotation."""
    text = json.dumps(desired, sort_keys=True, separators=(",", ":"))
    digest = sha256(text.encode()).hexdigest()[:_DIGITS]
    metadata = desired["metadata"]
    annotations = {**(metadata.get("annotations") or {}), APPLIED_HASH: digest}
    return {**desired, "metadata": {**metadata, "annotations": annotations}}


def must_apply(desired: Json, live: Json | None) -> bool:
    """Whether the stamped `desired` has to be written over `live`; None: there is none."""
    return live is None or not covers(live, desired)


def covers(live: Any, wanted: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Whether everything in `wanted` is in `live` as well."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(covers_field(live, key, value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(live, list) and _covers_list(live, wanted)
    return type(live) is type(wanted) and bool(live == wanted)


def covers_field(live: Json, key: str, wanted: Any, parent: str = "") -> bool:  # noqa: ANN401 - any JSON value
    """Whether the field `key` of the mapping `live`, which the field `parent` holds, has what is wanted."""
    if key not in live:
        # The API server leaves out what is empty: the value of a variable, of a toleration.
        return parent not in _QUANTITIES | _TEXTS and (wanted is None or wanted in ("", [], {}))
    found = live[key]
    if parent in _TEXTS or key in WHOLE:
        return bool(found == wanted)
    if parent in _QUANTITIES or key in _QUANTITY:
        return _is_same_amount(found, wanted)
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(covers_field(found, name, value, key) for name, value in wanted.items())
    return covers(found, wanted)


def _is_same_amount(live: object, wanted: object) -> bool:
    """Whether two quantities are equal however they are spelled: `0.1` and `100m`, `1024Mi` and `1Gi`."""
    try:
        return quantity_value(str(live)) == quantity_value(str(wanted))
    except ValueError:
        return live == wanted


def _covers_list(live: list[Any], wanted: list[Any]) -> bool:
    key = item_key(wanted)
    if key is None:
        return len(live) == len(wanted) and all(map(covers, live, wanted))
    by_key = {one.get(key): one for one in live if isinstance(one, dict)}
    return all(one[key] in by_key and covers(by_key[one[key]], one) for one in wanted)


def item_key(wanted: list[Any]) -> str | None:
    """Return the field that identifies the list's items; None: their order does."""
    if not wanted or not all(isinstance(one, dict) for one in wanted):
        return None
    return next((key for key in _LIST_KEYS if len({one.get(key) for one in wanted} - {None, ""}) == len(wanted)), None)
