"""The toolchains that the runtime's image can be built with, as runtime/toolchain/toolchains.toml lists them."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from development_cluster.layout import ROOT

__all__ = ["ToolchainRow", "read_toolchains"]

_TABLE = ROOT / "runtime" / "toolchain" / "toolchains.toml"


@dataclass(frozen=True, kw_only=True)
class ToolchainRow:
    """One toolchain.

    Attributes:
        base: the image to build on, which has its libraries; empty: any image with Python.
    """

    name: str
    backend: str
    version: str
    cuda: str
    base: str = ""

    @property
    def lock(self) -> str:
        """The locked packages, relative to the repository."""
        return f"requirements/toolchain-{self.name}.txt"


def read_toolchains(path: Path = _TABLE) -> dict[str, ToolchainRow]:
    """Return all rows by their names."""
    return {
        name: ToolchainRow(
            name=name, backend=row["backend"], version=row["version"], cuda=row["cuda"], base=row.get("base", "")
        )
        for name, row in tomllib.loads(path.read_text()).items()
    }
