"""Reads the data files of the version matrix, which are part of the package."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from enginesmith_contract.matrix.model import Matrix

__all__ = ["load_matrix"]


@cache
def load_matrix() -> Matrix:
    """Return the matrix of this release of the product; read once in a process."""
    sources = _read("sources")
    gpus = _read("gpus")
    precisions = _read("precisions")
    return Matrix.model_validate(
        {
            "sources": [{"id": name, **fields} for name, fields in sources.items()],
            "releases": _read("releases"),
            "cuda_drivers": _read("cuda_drivers"),
            "gpus": gpus["products"],
            "jetson_capabilities": gpus["jetson_capabilities"],
            "capability_precisions": precisions["capabilities"],
            "provider_precisions": precisions["providers"],
            "portability": _read("portability"),
            "tensorrt_rtx": _read("tensorrt_rtx"),
            "jetpacks": _read("jetpack"),
            "ngc_tags": _read("ngc_tags"),
        },
    )


def _read(name: str) -> Any:  # noqa: ANN401 - what YAML holds is anything until Matrix has validated it
    text = files("enginesmith_contract.matrix").joinpath("data", f"{name}.yaml").read_text(encoding="utf-8")
    # The C loader reads the files five times as fast, and every command starts with them; not every build has it.
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both loaders are safe
