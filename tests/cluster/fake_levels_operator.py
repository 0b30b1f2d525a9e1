"""The operator, and its CRDs, with a row of traits by which ONNX Runtime has TensorRT's optimization levels.

    fake_levels_operator.py CONFIG NAMESPACE    the operator, until it is killed
    fake_levels_operator.py crds                its CustomResourceDefinitions on stdout

TensorRT needs a GPU to build and to serve. All else is real: builders, stores, pods, and the GPUs that they ask for.
"""

import sys
from importlib import import_module
from pathlib import Path

from enginesmith_contract import backend_traits
from enginesmith_contract.backends import Backend


def _have_levels() -> None:
    levels = {"optimization_levels": True, "build_options": True}
    rows = tuple(
        row.model_copy(update=levels) if row.backend is Backend.ONNXRUNTIME else row
        for row in backend_traits.list_traits()
    )
    # Before any other module of the product asks.
    backend_traits.list_traits = lambda: rows  # type: ignore[assignment]


def main(arguments: list[str]) -> int:
    """Run the operator or print its definitions; return the exit code."""
    _have_levels()
    if arguments == ["crds"]:
        sys.path.append(str(Path(__file__).resolve().parents[2] / "hack"))
        kinds, crd = (import_module(f"api_schema.{name}") for name in ("kinds", "crd"))
        print("---\n".join(map(crd.crd_yaml, kinds.DEFINITIONS)))  # noqa: T201 - read by the test
        return 0
    config, namespace = arguments
    operator = import_module("enginesmith_operator.controller.__main__")
    return int(operator.main(["--config", config, "--namespace", namespace]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
