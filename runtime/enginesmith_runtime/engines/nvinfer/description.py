"""Whether a plan is what its manifest says: the same tensors, and in each profile the same shapes.

A manifest that promises more than its plan holds would have every request at the border refused by the library.
"""

from collections.abc import Iterator
from typing import Any

from enginesmith_contract.errors import EngineRefusedError
from enginesmith_contract.manifest import Manifest

__all__ = ["refuse_unless_described"]


def refuse_unless_described(manifest: Manifest, engine: Any) -> None:
    """Return where the manifest tells the truth.

    Raises:
        EngineRefusedError: `ManifestDiffers`, with every difference.
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
        yield f"the {'manifest' if name in said else 'engine'} alone has a tensor {name!r}"
    # A plan of fixed shapes has one profile of its own, whatever the manifest calls it.
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
                yield f"profile {profile.name!r} of {name!r} is said to be {told_range}, and it is {_range(*ranges)}"


def _range(low: tuple[int, ...], opt: tuple[int, ...], high: tuple[int, ...]) -> str:
    return " / ".join(str(list(shape)) for shape in (low, opt, high))
