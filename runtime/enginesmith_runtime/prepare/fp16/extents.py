"""The magnitudes of tensors in a run along the possible channel axes."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["Extent", "Floats", "extent_of"]

Floats = npt.NDArray[np.floating[Any]]

_CHANNELS_FROM: Final = 3  # for lower ranks the last axis has the channels
_MAP_RANK: Final = 4
_MOST_WHOLE: Final = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Extent:
    """The magnitudes of one tensor.

    Attributes:
        shape: Shape of the tensor.
        channels: Largest magnitudes along axis 1, from rank 3 on; for lower ranks equal to `last`.
        last: Largest magnitudes along the last axis.
        whole: All magnitudes, or, of more than 4 million, the largest along one axis in a shape that broadcasts. None
            if not requested.
    """

    shape: tuple[int, ...]
    channels: Floats
    last: Floats
    whole: Floats | None = None

    @property
    def peak(self) -> float:
        """Return the largest magnitude."""
        return float(self.last.max(initial=0))

    @property
    def axes(self) -> tuple[int, ...]:
        """Return the possible channel axes. The last axes of a map are positions."""
        rank = len(self.shape)
        return (1,) if rank >= _MAP_RANK else (1, 2) if rank == _CHANNELS_FROM else (rank - 1,) if rank else ()

    def along(self, axis: int) -> Floats:
        """Return the largest magnitudes along axis 1 or the last one."""
        return self.last if axis == len(self.shape) - 1 else self.channels


def extent_of(array: npt.NDArray[np.generic], *, is_output: bool = False) -> Extent:
    """Return the extent of a tensor. NaN and infinity count as 0. With `is_output` it has all magnitudes."""
    magnitudes: Floats = np.abs(array.astype(np.float32, copy=False))
    if not np.isfinite(magnitudes).all():
        magnitudes = np.where(np.isfinite(magnitudes), magnitudes, 0)
    rank = magnitudes.ndim
    last = magnitudes.max(axis=tuple(range(rank - 1)), initial=0).reshape(-1)
    others = tuple(axis for axis in range(rank) if axis != 1)
    channels = magnitudes.max(axis=others, initial=0) if rank >= _CHANNELS_FROM else last
    whole = None
    if is_output:
        places = (1, -1, *(1,) * (rank - 2)) if rank >= _MAP_RANK else (*(1,) * (rank - 1), -1)
        large = magnitudes.size > _MOST_WHOLE
        whole = (channels if rank >= _MAP_RANK else last).reshape(places) if large else magnitudes
    return Extent(shape=magnitudes.shape, channels=channels, last=last, whole=whole)
