"""Suggests the real product for a GPU product that no driver reports ("NVIDIA-T4", "NVIDIA-H200-SXM5-141GB")."""

import difflib
import re
from collections.abc import Iterable
from typing import Final

from enginesmith_contract.matrix.model import Matrix
from enginesmith_contract.products import canonical_product

__all__ = ["did_you_mean_product"]

_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")
_MEMORY: Final = re.compile(r"\d+gb?")
# Words that people add or omit. They never distinguish two models.
_IGNORED: Final = frozenset({"nvidia", "tesla", "geforce", "quadro", "grid", "mega", "gpu", "mig", "shared"})
_AT_HAND: Final = 3
_SXM: Final = re.compile(r"sxm\d*|hbm3")


def did_you_mean_product(matrix: Matrix, asked: str, seen: Iterable[str] = ()) -> str | None:
    """Return the real product most similar to `asked`, or None if `asked` is real itself or nothing is similar.

    Args:
        matrix: Version matrix with the known products.
        asked: Product as the user wrote it, with or without MIG and sharing suffix.
        seen: Products of the present nodes or devices. They are preferred over equally similar known products.
    """
    at_hand = tuple(dict.fromkeys(canonical_product(product) for product in seen))
    candidates = tuple(dict.fromkeys((*at_hand, *(row.product for row in matrix.gpus))))
    if asked in candidates:
        return None
    model = canonical_product(asked)
    if model in candidates:
        return model
    scored = {other: _score(_words(model), _words(other)) for other in candidates}
    near = {other: score + (_AT_HAND if other in at_hand else 0) for other, score in scored.items() if score > 0}
    if near:
        return max(near, key=lambda other: near[other])
    folded = {other.casefold(): other for other in candidates}
    close = difflib.get_close_matches(model.casefold(), folded, n=1, cutoff=0.8)
    return folded[close[0]] if close else None


def _words(product: str) -> frozenset[str]:
    spaced = re.sub(r"(rtx|gtx|pro)(?=[a0-9])", r"\1-", product.casefold())
    spaced = re.sub(r"(?<=\d)(?=(ti|super)\b)", "-", spaced)
    words = (_SXM.sub("sxm", word) for word in _SEPARATORS.split(spaced))
    return frozenset(word for word in words if word and word not in _IGNORED)


def _score(asked: frozenset[str], candidate: frozenset[str]) -> int:
    """Return the similarity of two products; 0 if they share no model number."""
    shared = asked & candidate
    numbers = {word for word in shared if re.search(r"\d", word) and not _MEMORY.fullmatch(word)}
    if not numbers:
        return 0
    return 1 + 8 * len(numbers) + 4 * len(shared - numbers) - len(candidate - asked)
