"""Hatchling's hook: a wheel with compiled modules where ENGINESMITH_COMPILE is 1, and one without otherwise."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["CompileHook"]

_VARIABLE: Final = "ENGINESMITH_COMPILE"


class CompileHook(BuildHookInterface):  # type: ignore[misc]  # hatchling is installed where wheels are built
    """Adds the extension modules to the wheel."""

    def dependencies(self) -> list[str]:
        """Return what compiling takes."""
        return ["mypy>=1.18", "setuptools>=80"] if _is_wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add what was made to the files of the wheel."""
        # An editable installation is its sources: they would differ from the modules with the next edit.
        if not _is_wanted() or version == "editable":
            return
        program = Path(__file__).with_name("compile_server.py")
        built = Path(tempfile.mkdtemp(prefix="enginesmith-wheel-"))
        subprocess.run([sys.executable, program, Path(self.root) / "runtime", built], check=True)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(path): str(path.relative_to(built)) for path in built.rglob("*.so")})


def _is_wanted() -> bool:
    return os.environ.get(_VARIABLE) == "1"
