"""The two libraries with nearly the same API: TensorRT and TensorRT for RTX.

The functions of this package take the imported module as a parameter. So tests with one library on a machine without a
GPU cover the code that runs with the other. Enumerations are always used by name, because their numbers changed between
TensorRT 10 and 11.
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
        title: Name in messages.
        module_name: Name of the Python module.
    """

    backend: Backend
    title: str
    module_name: str

    def version(self, failure: type[EnginesmithError] = BuildError) -> str:
        """Return the full installed version from the package's metadata.

        Raises:
            EnginesmithError: An error of class `failure` if the library is not installed.
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
            EnginesmithError: An error of class `failure` if the library or a library that it needs is missing.
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
        # Images that contain the native libraries have only the bindings package, which the plain package re-exports.
        return import_module(f"{self.module_name}_bindings")


TENSORRT_LIBRARY = NvInferLibrary(backend=Backend.TENSORRT, title="TensorRT", module_name="tensorrt")
RTX_LIBRARY = NvInferLibrary(backend=Backend.TENSORRT_RTX, title="TensorRT for RTX", module_name="tensorrt_rtx")
