"""Gathers the input of a plan: this machine or a file of nodes, the installed toolchains, the content of the store.

    observe_this_machine ──┐
    observe_nodes ─────────┴─> Observed ── observe_model ──> Observed that knows the model and its preparation

Nothing here decides anything; no backend's library is imported (one without a driver aborts its process).
"""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import ValidationError

from enginesmith_cli.calibration_data import read_digest
from enginesmith_cli.stored_engines import stored_keys
from enginesmith_contract.backends import Hardware
from enginesmith_contract.errors import EnginesmithError, SpecError
from enginesmith_contract.matrix.load import load_matrix
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.preprocess import client_facts
from enginesmith_contract.products import canonical_product
from enginesmith_contract.store_layout import preparation_pointer
from enginesmith_contract.text import one_line
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.regular_files import what_it_is
from enginesmith_operator.api.translate import model_source, preprocess
from enginesmith_operator.planning.desired import preparation_key_of
from enginesmith_operator.planning.hardware import NodeFacts, Offer, Presence, read_node
from enginesmith_operator.planning.node_object import NodeObject, ResourceSliceObject, dra_devices_by_node
from enginesmith_operator.planning.signers import signers_of
from enginesmith_operator.planning.snapshot import Observed
from enginesmith_runtime.engines.device import detect_devices, host_hardware, host_memory_mib
from enginesmith_runtime.engines.registry import installed_toolchains
from enginesmith_runtime.fetch.location import Scheme, scheme_of
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.open import open_store
from enginesmith_runtime.store.records import read_record

if TYPE_CHECKING:
    from enginesmith_operator.controller.shared.settings import OperatorSettings

__all__ = [
    "THIS_MACHINE",
    "nodes_from_devices",
    "nodes_of",
    "observe_model",
    "observe_nodes",
    "observe_this_machine",
    "read_nodes_file",
    "with_preparation",
]

THIS_MACHINE = "this machine"
_GPU_RESOURCE = "nvidia.com/gpu"
_NODE = "Node"
_SLICE = "ResourceSlice"


def observe_this_machine(store_uri: str, *, build_for_absent_gpus: bool = False) -> Observed:
    """Return this machine as the only node; none found is a normal answer of NVML.

    Args:
        store_uri: of the store whose keys are listed.
        build_for_absent_gpus: let TensorRT for RTX build for hardware that is not here.

    Raises:
        enginesmith_contract.errors.StoreError: the store cannot be read.
    """
    return Observed(
        nodes=nodes_from_devices(detect_devices(), host_hardware()),
        engine_keys=frozenset(stored_keys(open_store(store_uri))),
        matrix=load_matrix(),
        toolchains=installed_toolchains(),
        store=store_uri,
        local=True,
        build_for_absent_gpus=build_for_absent_gpus,
    )


def observe_nodes(path: Path, store_uri: str, settings: "OperatorSettings") -> Observed:
    """Return the nodes of a file, with what is installed here as the toolchain catalog.

    Args:
        path: of the file.
        store_uri: of the store whose keys are listed.
        settings: how the nodes are read, and pools that may have no node now.

    Raises:
        enginesmith_contract.errors.SpecError: the file cannot be read or holds no nodes.
        enginesmith_contract.errors.StoreError: the store cannot be read.
    """
    mapping = settings.labels.merged()
    return Observed(
        node_classes=settings.node_classes,
        build_for_absent_gpus=settings.build_for_absent_gpus,
        nodes=tuple(read_node(node, mapping) for node in read_nodes_file(path)),
        engine_keys=frozenset(stored_keys(open_store(store_uri))),
        matrix=load_matrix(),
        toolchains=installed_toolchains(),
        store=store_uri,
    )


def observe_model(
    observed: Observed,
    engine: InferenceEngine,
    *,
    base: Path,
    scratch: Path,
    warn: Callable[[EnginesmithError], None],
) -> Observed:
    """Add the facts of a local model file. A remote model, or one that cannot be read, stays pending.

    Args:
        observed: what was seen so far.
        engine: whose model it is.
        base: the folder that a relative path starts from.
        scratch: takes copies of weights that are links.
        warn: told why a local model cannot be read. A plan shows where things would go all the same.
    """
    source = model_source(engine.spec, signers_of(engine.spec, observed))
    try:
        if scheme_of(source.uri) is not Scheme.FILE:
            return observed
        from enginesmith_runtime.fetch.model import fetch_model
        from enginesmith_runtime.prepare.model_file.facts import inspect_model

        fetched = fetch_model(source, scratch, SilentReporter(), base=base)
        facts = client_facts(inspect_model(fetched.path), preprocess(engine.spec) or ())
        data = read_digest(engine, base, scratch)
        known = observed.model_copy(
            update={"source_digest": fetched.source_digest, "calibration_digest": data, "model_facts": facts}
        )
    except EnginesmithError as error:
        warn(error)
        return observed
    return with_preparation(known, engine)


def with_preparation(observed: Observed, engine: InferenceEngine) -> Observed:
    """Add the stored preparation with the engine's key, where there is one.

    Raises:
        enginesmith_contract.errors.StoreError: the store cannot be read.
    """
    key = preparation_key_of(engine.spec, observed)
    preparation = read_record(open_store(observed.store), preparation_pointer(key), Preparation) if key else None
    return observed if preparation is None else observed.model_copy(update={"preparation": preparation})


def read_nodes_file(path: Path) -> tuple[NodeObject, ...]:
    """Return the nodes of a YAML or JSON file: documents, or the list that `kubectl get nodes -o yaml` prints.

    ResourceSlices among them (`kubectl get nodes,resourceslices -o yaml`) say what dynamic resource allocation hands
    out. The path `-` is standard input.

    Raises:
        enginesmith_contract.errors.SpecError: the file cannot be read or holds no nodes.
    """
    remedy = "save one with: kubectl get nodes -o yaml"
    try:
        special = "" if str(path) == "-" else what_it_is(path)
        if special:
            raise SpecError("the nodes cannot be read", where=str(path), why=f"it is {special}", remedy=remedy)
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        documents = list(yaml.safe_load_all(text))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = one_line(str(error))
        raise SpecError("the nodes cannot be read", where=str(path), why=why, remedy=remedy) from error
    return nodes_of([item for document in documents if document is not None for item in _items(document)], str(path))


def nodes_of(items: Sequence[object], where: str) -> tuple[NodeObject, ...]:
    """Return the nodes among Nodes and ResourceSlices.

    Raises:
        enginesmith_contract.errors.SpecError: there is another object, or no node.
    """
    remedy = "save one with: kubectl get nodes -o yaml"
    strangers = [kind for item in items if (kind := _kind(item)) not in {_NODE, _SLICE}]
    if strangers:
        why = f"it holds an object of kind {strangers[0]}"
        raise SpecError("not a list of nodes", where=where, why=why, remedy=remedy)
    try:
        slices = tuple(ResourceSliceObject.model_validate(item) for item in items if _kind(item) == _SLICE)
        nodes = tuple(NodeObject.model_validate(item) for item in items if _kind(item) == _NODE)
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise SpecError("not a list of nodes", where=where, why=why, remedy=remedy) from error
    if not nodes:
        raise SpecError("the file has no nodes", where=where, remedy=remedy)
    devices = dra_devices_by_node(slices)
    return tuple(node.with_dra_devices(devices) for node in nodes)


def nodes_from_devices(devices: tuple[Hardware, ...], host: Hardware) -> tuple[NodeFacts, ...]:
    """Return this machine as one node for each GPU model that it has; without a GPU, as one that has none."""
    if not devices:
        bare = NodeFacts(name=THIS_MACHINE, is_local=True, presence=Presence.NONE, arch=host.arch, os=host.os)
        return (bare,)
    kinds = Counter(devices)
    alone = len(kinds) == 1
    return tuple(
        _node(device, count, host, "" if alone else f" ({number})")
        for number, (device, count) in enumerate(kinds.items())
    )


def _node(device: Hardware, count: int, host: Hardware, suffix: str) -> NodeFacts:
    offer = Offer(
        mig_profile=device.mig_profile,
        resource=_GPU_RESOURCE,
        allocatable=count,
        memory_mib=device.memory_mib,
        multiprocessors=device.multiprocessors,
    )
    return NodeFacts(
        name=f"{THIS_MACHINE}{suffix}",
        is_local=True,
        presence=Presence.NVIDIA,
        arch=host.arch,
        os=host.os,
        product=canonical_product(device.product) if device.product else None,
        product_from="NVML",
        compute_capability=device.compute_capability,
        memory_mib=device.memory_mib,
        driver=device.driver,
        discovered=True,
        host_memory_mib=host_memory_mib(),
        offers=(offer,),
        capacity={_GPU_RESOURCE: count},
    )


def _kind(item: object) -> str:
    """Return an object's kind; a document without a kind is treated as a node, and refused later if it is none."""
    return str(item.get("kind", _NODE)) if isinstance(item, dict) else _NODE


def _items(document: object) -> list[object]:
    if isinstance(document, dict) and isinstance(document.get("items"), list):
        return list(document["items"])
    return [document]
