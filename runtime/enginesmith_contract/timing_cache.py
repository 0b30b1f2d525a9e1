"""How much of its measurements a build took from earlier builds."""

from pydantic import Field

from enginesmith_contract.record import Record

__all__ = ["TimingCacheUse"]


class TimingCacheUse(Record):
    """Use that a build made of the timing cache of earlier builds.

    Attributes:
        found: Number of entries in the cache when the build began.
        added: Number of entries that the build added.
        timed: Number of layer implementations that the build timed itself. Omitted if the library does not say.
    """

    found: int = Field(ge=0)
    added: int = Field(ge=0)
    timed: int | None = Field(default=None, ge=0)

    def text(self) -> str:
        """Return a short text about the use."""
        timed = "" if self.timed is None else f", {self.timed} layer implementations timed"
        if self.found and not self.added:
            return f"all from the timing cache ({self.found} entries{timed})"
        return f"{self.added} entries added to a timing cache of {self.found}{timed}"
