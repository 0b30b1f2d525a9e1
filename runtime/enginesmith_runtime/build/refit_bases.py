"""Which stored engine a build can start from: the same in everything but the values of the model's weights.

A pointer of its own names it, because a structure says nothing about where an engine lies. The engine that was built
stays the base of all that are refitted from it, since a refitted plan need not be refittable again.
"""

from contextlib import suppress
from pathlib import Path

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import StoreError
from enginesmith_contract.keys import EngineCandidate, RefitKeyInputs, refit_key
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.store_layout import RefitBasePointer, refit_base_pointer
from enginesmith_runtime.engines.refitting import RefitBase
from enginesmith_runtime.store.engines import find_engine
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.records import read_record

__all__ = ["find_refit_base", "remember_refit_base"]


def find_refit_base(store: Store, request: BuildRequest, preparation: Preparation, folder: Path) -> RefitBase | None:
    """Return the engine to refit, its plan laid out in `folder`; None where there is none, or a damaged one."""
    name = _pointer_name(request, preparation)
    if name is None:
        return None
    try:
        manifest = _read_base(store, name)
        if manifest is None:
            return None
        return RefitBase(manifest=manifest, plan=store.get_files(manifest.files[:1], folder))
    except StoreError:
        # It only saves time: the engine is built, and becomes the base.
        return None


def remember_refit_base(store: Store, request: BuildRequest, preparation: Preparation, manifest: Manifest) -> None:
    """Let later builds of this structure start from an engine that was just built."""
    name = _pointer_name(request, preparation)
    if name is None or manifest.refitted_from is not None:
        return
    # The engine is stored; without the pointer the next build only takes longer.
    with suppress(StoreError):
        store.replace_pointer(name, RefitBasePointer(engine_key=manifest.engine_key).to_json())


def _pointer_name(request: BuildRequest, preparation: Preparation) -> str | None:
    is_possible = traits(request.toolchain.backend).refit and request.options.refittable
    if not is_possible or preparation.structure_digest is None:
        return None
    fields = request.key_inputs.model_dump(exclude={"preparation_key"})
    inputs = RefitKeyInputs(
        candidate=EngineCandidate.model_validate(fields),
        structure_digest=preparation.structure_digest,
        profiles=preparation.profiles,
        precision=preparation.precision.default,
    )
    return refit_base_pointer(refit_key(inputs))


def _read_base(store: Store, name: str) -> Manifest | None:
    base = read_record(store, name, RefitBasePointer)
    return None if base is None else find_engine(store, base.engine_key)
