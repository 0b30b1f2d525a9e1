"""The release of this code. Images contain the sources without package metadata, so the release is a constant."""

from typing import Final

__all__ = ["RELEASE"]

RELEASE: Final = "0.1.0"
"""Equal to the version in pyproject.toml."""
