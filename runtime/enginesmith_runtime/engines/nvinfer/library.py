"""The two libraries of one API shape: TensorRT and TensorRT for RTX.

Every helper called `nvinfer_*` takes the imported module as a parameter, so that what is proved with one library on a
machine without a GPU is the code that runs with the other. Enumerations are always addressed by name: their numbers
moved between TensorRT 10 and 11.
"""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from enginesmith_contract.backends import Backend
from enginesmith_contract.errors import BuildError, EnginesmithError
from enginesmith_runtime.engines.registry import installed_toolchains

__all__ = ["RTX_LIBRARY", "TENSORRT_LIBRARY", "NvInferLibrary"]


@dataclass(frozen=True, kw_only=True)
class NvInferLibrary:
    """One of the libraries.

    Attributes:
        title: its name in messages.
        module_name: what Python imports.
    """

    backend: Backend
    title: str
    module_name: str

    def version(self, failure: type[EnginesmithError] = BuildError) -> str:
        """Return the installed version in full, from the package's metadata.

        Raises:
            EnginesmithError: of the class `failure`, where the library is not installed.
        """
        for toolchain in installed_toolchains():
            if toolchain.backend is self.backend:
                return toolchain.version
        raise failure(
            f"{self.title} is not installed",
            where=f"backend {self.backend}",
            remedy="run enginesmith doctor, which prints the command that installs it, or use an image that has it",
            reason="ToolchainMissing",
        )

    def load(self, failure: type[EnginesmithError] = BuildError) -> Any:
        """Import the library.

        Raises:
            EnginesmithError: of the class `failure`, where it is missing or one of its own libraries is.
        """
        self.version(failure)
        try:
            return self._import()
        except (ImportError, OSError) as error:
            raise failure(
                f"{self.title} cannot be loaded",
                where=self.module_name,
                why=str(error),
                remedy="install its libraries together with its Python bindings",
                reason="ToolchainBroken",
            ) from error

    def _import(self) -> Any:
        if find_spec(self.module_name) is not None:
            return import_module(self.module_name)
        # Images that bring the libraries themselves have the bindings alone, which the plain package only re-exports.
        return import_module(f"{self.module_name}_bindings")


TENSORRT_LIBRARY = NvInferLibrary(backend=Backend.TENSORRT, title="TensorRT", module_name="tensorrt")
RTX_LIBRARY = NvInferLibrary(backend=Backend.TENSORRT_RTX, title="TensorRT for RTX", module_name="tensorrt_rtx")
