"""What the places of QuantizeLinear and DequantizeLinear cost: a prepared INT8 model, changed and built again.

Usage: python -m benchmarks.gpu.placement_variants WORK BACKEND NAME VARIANT; prints what came of it as JSON, and leaves
the plan in WORK/variants/VARIANT. These models are not verified: only their speed is of interest.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import onnx
from benchmarks.gpu.building import find_document
from benchmarks.gpu.documents import Workplace
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.backends import Backend
from enginesmith_contract.errors import EnginesmithError
from enginesmith_runtime.build.timing_caches import StoredTimingCache, timing_cache_place
from enginesmith_runtime.engines.device import detect_devices, host_hardware
from enginesmith_runtime.engines.interface import BuildJob
from enginesmith_runtime.engines.registry import builder
from enginesmith_runtime.store.open import open_store

__all__ = ["VARIANTS", "plan_of", "with_casts", "without_shortcuts"]

_PAIR: Final = ("QuantizeLinear", "DequantizeLinear")


def plan_of(work: Workplace, variant: str) -> Path:
    """Return where the plan of a variant is."""
    return work.root / "variants" / variant / "engine.plan"


def without_shortcuts(model: onnx.ModelProto) -> int:
    """Let Adds read floats in place of quantised values; returns how many do."""
    made = {output: node for node in model.graph.node for output in node.output}
    changed = 0
    for node in model.graph.node:
        for index, name in enumerate(node.input if node.op_type == "Add" else ()):
            dequantize = made.get(name)
            quantize = made.get(dequantize.input[0]) if dequantize and dequantize.op_type == _PAIR[1] else None
            if quantize is not None:
                node.input[index] = quantize.input[0]
                changed += 1
    for kind in reversed(_PAIR):
        read = {name for node in model.graph.node for name in node.input}
        kept = [node for node in model.graph.node if node.op_type != kind or node.output[0] in read]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del model.graph.node[:]
        model.graph.node.extend(copies)
    return changed


def with_casts(model: onnx.ModelProto) -> int:
    """Give FP16 pairs scales in FP32, with a Cast on either side; returns how many DequantizeLinear have one."""
    scales = {node.input[1] for node in model.graph.node if node.op_type in _PAIR}
    halves = set()
    for tensor in model.graph.initializer:
        if tensor.name in scales and tensor.data_type == TensorProto.FLOAT16:
            halves.add(tensor.name)
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name))
    nodes, changed = [], 0
    for old in model.graph.node:
        node = onnx.NodeProto.FromString(old.SerializeToString())
        if node.op_type not in _PAIR or node.input[1] not in halves:
            nodes.append(node)
        elif node.op_type == _PAIR[0]:
            wide = f"{node.input[0]}_wide_{len(nodes)}"
            nodes.append(helper.make_node("Cast", [node.input[0]], [wide], to=TensorProto.FLOAT))
            node.input[0] = wide
            nodes.append(node)
        else:
            narrow, wide = node.output[0], f"{node.output[0]}_wide"
            node.output[0] = wide
            nodes += [node, helper.make_node("Cast", [wide], [narrow], to=TensorProto.FLOAT16)]
            changed += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    return changed


VARIANTS: Final[Mapping[str, Callable[[onnx.ModelProto], int]]] = {
    "no-quantised-shortcuts": without_shortcuts,
    "casts-behind-dequantize": with_casts,
}


class _Quiet:
    """Takes a builder's progress."""

    def phase(self, name: str, *, steps: int, parent: str | None = None) -> None:
        """Say nothing."""

    def step(self, name: str, step: int) -> bool:
        """Continue."""
        return bool(name) or step >= 0

    def finish(self, name: str) -> None:
        """Say nothing."""


def _build(work: Workplace, name: str, variant: str) -> dict[str, Any]:
    document = work.prepare(find_document(work, name).engine(work.backend))
    (planned,) = document.plan.targets[0].engines
    if planned.build is None:
        raise LookupError(name)
    request, preparation, store = planned.build, document.preparation, open_store(work.store)
    output = plan_of(work, variant).parent
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work.root) as folder:
        path = store.get_files(preparation.model, Path(folder) / "model", private=True)
        model = onnx.load(path)
        changed = VARIANTS[variant](model)
        onnx.save(model, path)
        device = next(iter(detect_devices()), None) or host_hardware()
        place = timing_cache_place(device, request.toolchain.version)
        begun = time.monotonic()
        built = builder(Backend(work.backend)).build(
            BuildJob(
                request=request,
                preparation=preparation,
                model=path,
                output=output,
                device=device,
                timing_cache=None if place is None else StoredTimingCache(store, place, Path(folder)),
            ),
            _Quiet(),
        )
    return {
        "changedNodes": changed,
        "buildSeconds": round(time.monotonic() - begun, 1),
        "builderSeconds": built.builder_seconds,
        "planBytes": built.files[0].stat().st_size,
    }


def main() -> None:
    """Build one variant."""
    root, backend, name, variant = sys.argv[1:]
    try:
        found = _build(Workplace(root=Path(root), backend=backend), name, variant)
    except (EnginesmithError, RuntimeError, OSError, LookupError, ValueError) as error:
        found = {"failed": f"{type(error).__name__}: {error}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
