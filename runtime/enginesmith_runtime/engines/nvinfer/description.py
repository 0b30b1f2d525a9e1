"""Checks that a plan fits its manifest: it must have the same tensors and, in each profile, the same shapes.

If the ranges of a manifest were larger than those of its plan, the library would refuse requests at the limits.
"""

from collections.abc import Iterator
from typing import Any

from enginesmith_contract.errors import EngineRefusedError
from enginesmith_contract.manifest import Manifest

__all__ = ["refuse_unless_described"]


def refuse_unless_described(manifest: Manifest, engine: Any) -> None:
    """Return if the manifest describes the engine.

    Raises:
        EngineRefusedError: `ManifestDiffers` with every difference.
    """
    differences = tuple(_list_differences(manifest, engine))
    if not differences:
        return
    raise EngineRefusedError(
        "the manifest does not describe its engine",
        where=f"engine {manifest.engine_key[:12]}",
        why="; ".join(differences),
        remedy="build the engine again; the store was altered",
        reason="ManifestDiffers",
    )


def _list_differences(manifest: Manifest, engine: Any) -> Iterator[str]:
    found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    said = {spec.name for spec in (*manifest.inputs, *manifest.outputs)}
    for name in sorted(said ^ found):
        yield f"only the {'manifest' if name in said else 'engine'} has a tensor {name!r}"
    # A plan of fixed shapes has one profile without a name.
    dynamic = [
        spec.name
        for spec in manifest.inputs
        if spec.name in found and any(size < 0 for size in tuple(engine.get_tensor_shape(spec.name)))
    ]
    if dynamic and len(manifest.profiles) != engine.num_optimization_profiles:
        yield f"the manifest has {len(manifest.profiles)} profiles, the engine {engine.num_optimization_profiles}"
        return
    for index, profile in enumerate(manifest.profiles):
        for name in dynamic:
            told = profile.inputs.get(name)
            ranges = tuple(tuple(shape) for shape in engine.get_tensor_profile_shape(name, index))
            if told is not None and (told.min, told.opt, told.max) != ranges:
                told_range = _range(told.min, told.opt, told.max)
                where = f"profile {profile.name!r} of {name!r}"
                yield f"{where} is {told_range} in the manifest, and {_range(*ranges)} in the engine"


def _range(low: tuple[int, ...], opt: tuple[int, ...], high: tuple[int, ...]) -> str:
    return " / ".join(str(list(shape)) for shape in (low, opt, high))
