"""Conditions of an InferenceEngine that a plan sets: each a documented constant with its polarity.

| type | True means | False means | absent means |
|---|---|---|---|
| Planned | every target has a plan | at least one has none; the reason of the first is shown | never planned |
| KeysResolved | source digest and keys are known | pending: the model was not fetched yet | never planned |
| UpdateAvailable | a newer toolchain is in range and not used | - | nothing newer |
| NodesMissing | a target waits for nodes of a node class | - | nodes are there |

Planned and KeysResolved are good when True; UpdateAvailable and NodesMissing tell something and are absent otherwise.
Messages are one line, hold no time, and stay as they are while the same thing recurs.
"""

from typing import Final

from enginesmith_contract.record import Record

__all__ = [
    "KEYS_RESOLVED",
    "NODES_MISSING",
    "PLANNED",
    "UPDATE_AVAILABLE",
    "Condition",
]

PLANNED: Final = "Planned"
KEYS_RESOLVED: Final = "KeysResolved"
UPDATE_AVAILABLE: Final = "UpdateAvailable"
NODES_MISSING: Final = "NodesMissing"


class Condition(Record):
    """One condition, without its times: the code that writes the status adds them.

    Attributes:
        reason: CamelCase, stable.
    """

    type: str
    status: bool
    reason: str
    message: str
