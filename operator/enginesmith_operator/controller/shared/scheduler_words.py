"""Explains the scheduler's message for a pod that fits no node: how many nodes lack what, and what helps.

0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match Pod's node affinity/selector. ...
the only node that fits has no free nvidia.com/gpu; 2 other nodes are not for it (another GPU, or other labels)
"""

import re
from typing import Final

__all__ = ["explain_scheduling", "lacks"]

_SENTENCE: Final = re.compile(r"^0/(\d+) nodes are available: (.*?)\.?(?: (?:preemption|no new claims)\b.*)?$")
_PART: Final = re.compile(r"(\d+) (.+?)(?=, \d+ |$)")
_INSUFFICIENT: Final = "Insufficient "
_TAINT: Final = re.compile(r"had (?:untolerated )?taints? (\{[^}]*\})")
_KNOWN: Final = (
    ("didn't match Pod's node affinity/selector", "not for it (another GPU, or other labels)"),
    ("were unschedulable", "cordoned (kubectl uncordon)"),
    ("had untolerated taint", "tainted (spec.podTemplate.tolerations)"),
)


def explain_scheduling(words: str, resource: str | None = None) -> str:
    """Return why a pod fits no node as a clause.

    Args:
        words: of the pod's condition PodScheduled.
        resource: the GPU resource that the pod asks for; None: none.
    """
    sentence = _SENTENCE.match(words)
    if sentence is None:
        return words
    parts = [(int(count), text) for count, text in _PART.findall(sentence[2])]
    wanted = f"{_INSUFFICIENT}{resource}"
    full = sum(count for count, text in parts if text == wanted)
    others = [_clause(count, text) for count, text in parts if text != wanted]
    if not full:
        return f"no node takes the pod: {'; '.join(others)}"
    head = "the only node that fits has no" if full == 1 else f"none of the {full} nodes that fit has a"
    return "; ".join((f"{head} free {resource}", *others))


def lacks(words: str, resource: str | None) -> bool:
    """Whether the pod would fit a node if it had a free `resource`."""
    # The name of another resource may begin with this one's.
    pattern = rf"{_INSUFFICIENT}{re.escape(resource or '')}(?:,|\.?(?: |$))"
    return resource is not None and re.search(pattern, words) is not None


def _clause(count: int, text: str) -> str:
    nodes, verb = ("1 node", "is") if count == 1 else (f"{count} nodes", "are")
    if text.startswith(_INSUFFICIENT):
        return f"{nodes} {'has' if count == 1 else 'have'} too little {text.removeprefix(_INSUFFICIENT)}"
    taint = _TAINT.search(text)
    if taint is not None:
        return f"{nodes} {verb} tainted {taint[1]} (spec.podTemplate.tolerations)"
    said = next((said for known, said in _KNOWN if known in text), None)
    return f"{nodes} {verb} {said}" if said is not None else f"{nodes}: {text.removeprefix('node(s) ')}"
