"""The release of this code. Images have the sources without a package's metadata."""

from typing import Final

__all__ = ["RELEASE"]

RELEASE: Final = "0.1.0"
"""As in pyproject.toml."""
