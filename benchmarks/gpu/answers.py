"""Small models whose answers are easy to get wrong, built and asked on this machine: each answer against the right one.

Usage: python -m benchmarks.gpu.answers WORK [--backend tensorrt|onnxruntime] [--out FILE]; one case: --case NAME.

Each case has a process of its own, since TensorRT may abort. A case is `right`, `wrong`, or `refused` with the reason.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from benchmarks.gpu.documents import Workplace
from benchmarks.gpu.machine import describe_machine
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.errors import EnginesmithError
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_runtime.engines.registry import loader
from enginesmith_runtime.store.open import open_store

__all__: list[str] = []

F, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Array = np.ndarray
Write = Callable[[Path], None]
_SECONDS: Final = 240
_AT_ONCE: Final = 4


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model, what is sent and what is right.

    Attributes:
        write: writes the model to a path.
        profile: by input: min, opt and max shape, and after them ranges of values, where the input holds sizes.
        send: inputs of one request.
        want: outputs that are right; empty: only a refusal is.
        refusal: a word of the refusal that is right where the backend cannot take the model.
    """

    write: Write
    profile: Mapping[str, Sequence[Sequence[int]]]
    send: Mapping[str, Any] = field(default_factory=dict)
    want: Mapping[str, Any] = field(default_factory=dict)
    refusal: str = ""
    precision: str = "fp32"
    tolerance: float = 1e-3


def _info(name: str, dtype: int, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    **weights: Any,  # noqa: ANN401 - whatever numpy makes an array of
) -> Write:
    def write(path: Path) -> None:
        tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
        graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 10
        onnx.save(model, path)

    return write


def _external() -> Write:
    plain = _model(
        [_node("MatMul", ["x", "w"], ["y"])],
        [_info("x", F, ["N", 2])],
        [_info("y", F, ["N", 1000])],
        w=np.arange(2000, dtype=np.float32).reshape(2, 1000),
    )

    def write(path: Path) -> None:
        plain(path)
        model = onnx.load(path)
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)

    return write


_node = helper.make_node
_ROWS: Final = ((1, 4), (2, 4), (8, 4))

CASES: Final[Mapping[str, Case]] = {
    "external-weights": Case(
        write=_external(), profile={"x": ((1, 2), (2, 2), (8, 2))}, send={"x": [[1.0, 1.0]]},
        want={"y": [np.arange(1000, 3000, 2, dtype=np.float32)]},
    ),
    "rank-0-output": Case(
        write=_model([_node("ReduceMean", ["x"], ["z"], keepdims=0)], [_info("x", F, ["N", 4])], [_info("z", F, [])]),
        profile={"x": _ROWS}, send={"x": [[1.0, 2.0, 3.0, 4.0]]}, want={"z": 2.5},
    ),
    "rank-0-input": Case(
        write=_model(
            [_node("Mul", ["x", "s"], ["y"])], [_info("x", F, ["N", 4]), _info("s", F, [])], [_info("y", F, ["N", 4])]
        ),
        profile={"x": _ROWS, "s": ((), (), ())}, send={"x": [[1.0, 2.0, 3.0, 4.0]], "s": 3.0},
        want={"y": [[3.0, 6.0, 9.0, 12.0]]},
    ),
    "fp16-epsilon": Case(
        write=_model(
            [
                _node("ReduceL2", ["x"], ["n"], axes=[1], keepdims=1), _node("Max", ["n", "eps"], ["m"]),
                _node("Div", ["x", "m"], ["y"]),
            ],
            [_info("x", F, ["N", 4])], [_info("y", F, ["N", 4])], eps=np.float32(1e-12),
        ),
        profile={"x": _ROWS}, send={"x": [[0.0] * 4]}, want={"y": [[0.0] * 4]}, precision="fp16",
    ),
    "fp16-sentinel": Case(
        write=_model(
            [_node("Equal", ["x", "v"], ["e"]), _node("Cast", ["e"], ["y"], to=F)],
            [_info("x", F, ["N", 4])], [_info("y", F, ["N", 4])], v=np.float32(4097),
        ),
        profile={"x": _ROWS}, send={"x": [[4097.0, 4096.0, 1.0, 2.0]]}, want={"y": [[1.0, 0.0, 0.0, 0.0]]},
        precision="fp16",
    ),
    "fp16-sum-of-squares": Case(
        write=_model(
            [
                _node("Mul", ["x", "x"], ["s"]), _node("ReduceSum", ["s", "ax"], ["t"], keepdims=1),
                _node("Sqrt", ["t"], ["y"]),
            ],
            [_info("x", F, ["N", 64])], [_info("y", F, ["N", 1])], ax=np.array([1], np.int64),
        ),
        profile={"x": ((1, 64), (2, 64), (8, 64))}, send={"x": [[100.0] * 64]}, want={"y": [[800.0]]}, precision="fp16",
    ),
    "masked-logits": Case(
        write=_model(
            [_node("Where", ["m", "x", "low"], ["y"])],
            [_info("x", F, ["N", 4]), _info("m", BOOL, ["N", 4])], [_info("y", F, ["N", 4])], low=np.float32(-np.inf),
        ),
        profile={"x": _ROWS, "m": _ROWS}, send={"x": [[1.0, 2.0, 3.0, 4.0]], "m": [[True, False, True, False]]},
        want={"y": [[1.0, -np.inf, 3.0, -np.inf]]},
    ),
    "class-ids": Case(
        write=_model(
            [_node("ArgMax", ["x"], ["i"], axis=1, keepdims=0)], [_info("x", F, ["N", 4])], [_info("i", I64, ["N"])]
        ),
        profile={"x": _ROWS}, send={"x": [[0.1, 0.9, 0.3, 0.2]]}, want={"i": [1]},
    ),
    "output-shape-in-file-is-wrong": Case(
        write=_model(
            [_node("Unsqueeze", ["x", "ax"], ["u"]), _node("Relu", ["u"], ["y"])],
            [_info("x", F, ["N", 4])], [_info("y", F, [1, "K"])], ax=np.array([1], np.int64),
        ),
        profile={"x": _ROWS}, send={"x": [[1.0, -2.0, 3.0, -4.0]] * 2}, want={"y": [[[1.0, 0.0, 3.0, 0.0]]] * 2},
    ),
    "output-without-shape": Case(
        write=_model([_node("Relu", ["x"], ["y"])], [_info("x", F, ["N", 2])], [_info("y", F, None)]),
        profile={"x": ((1, 2), (2, 2), (8, 2))}, send={"x": [[1.0, -2.0]]}, want={"y": [[1.0, 0.0]]},
    ),
    "empty-cache": Case(
        write=_model(
            [_node("Concat", ["cache", "x"], ["y"], axis=1)],
            [_info("x", F, [1, 1, 4]), _info("cache", F, [1, "T", 4])], [_info("y", F, [1, "T1", 4])],
        ),
        profile={"x": ((1, 1, 4),) * 3, "cache": ((1, 0, 4), (1, 8, 4), (1, 16, 4))},
        send={"x": np.ones((1, 1, 4)), "cache": np.zeros((1, 0, 4))}, want={"y": np.ones((1, 1, 4))},
    ),
    "values-of-sizes": Case(
        write=_model(
            [_node("TopK", ["x", "k"], ["v", "i"], axis=1)],
            [_info("x", F, ["N", 10]), _info("k", I64, [1])], [_info("v", F, ["N", "k"]), _info("i", I64, ["N", "k"])],
        ),
        profile={"x": ((1, 10), (2, 10), (4, 10)), "k": ((1,), (1,), (1,), (1,), (3,), (5,))},
        send={"x": [np.arange(10.0)], "k": [3]}, want={"v": [[9.0, 8.0, 7.0]], "i": [[9, 8, 7]]},
    ),
    "bf16-inside": Case(
        write=_model(
            [
                _node("Cast", ["x"], ["b"], to=TensorProto.BFLOAT16), _node("Add", ["b", "b"], ["c"]),
                _node("Cast", ["c"], ["y"], to=F),
            ],
            [_info("x", F, ["N", 4])], [_info("y", F, ["N", 4])],
        ),
        profile={"x": _ROWS}, send={"x": [[1.0, 2.0, 3.0, 4.0]]}, want={"y": [[2.0, 4.0, 6.0, 8.0]]},
    ),
    "input-that-is-an-output": Case(
        write=_model(
            [_node("Relu", ["x"], ["y"])], [_info("x", F, ["N", 2])], [_info("y", F, ["N", 2]), _info("x", F, ["N", 2])]
        ),
        profile={"x": ((1, 2), (2, 2), (8, 2))}, send={"x": [[1.0, -2.0]]},
        want={"y": [[1.0, 0.0]], "x": [[1.0, -2.0]]}, refusal="Identity",
    ),
    "asymmetric-int8": Case(
        write=_model(
            [_node("QuantizeLinear", ["x", "s", "zp"], ["q"]), _node("DequantizeLinear", ["q", "s", "zp"], ["y"])],
            [_info("x", F, ["N", 4])], [_info("y", F, ["N", 4])], s=np.float32(0.1), zp=np.uint8(128),
        ),
        profile={"x": _ROWS}, send={"x": [[1.0, 2.0, 3.0, 4.0]]}, want={"y": [[1.0, 2.0, 3.0, 4.0]]},
        refusal="zero point",
    ),
}  # fmt: skip


def _document(name: str, case: Case, backend: str) -> InferenceEngine:
    inputs: dict[str, dict[str, Any]] = {}
    for tensor, shapes in case.profile.items():
        inputs[tensor] = dict(zip(("min", "opt", "max"), map(list, shapes[:3]), strict=True))
        if len(shapes) > 3:  # noqa: PLR2004 - three shapes, then three lists of values
            inputs[tensor]["values"] = dict(zip(("min", "opt", "max"), map(list, shapes[3:]), strict=True))
    return InferenceEngine.model_validate(
        {
            "metadata": {"name": name},
            "spec": {
                "model": {"uri": f"{name}.onnx"},
                "precision": case.precision,
                "profiles": [{"name": "only", "inputs": inputs}],
                "toolchain": {"tensorrt": ">=10.6,<12"},
                "targets": [{"name": "only", "backend": backend}],
            },
        }
    )


def _run(work: Workplace, name: str) -> dict[str, Any]:
    case = CASES[name]
    case.write(work.models / f"{name}.onnx")
    try:
        manifest = work.build(_document(name, case, work.backend))
    except EnginesmithError as error:
        expected = bool(case.refusal) and case.refusal in str(error)
        return {"verdict": "refused as it should be" if expected else "refused", "message": str(error)[:600]}
    dtypes = {spec.name: spec.dtype.numpy for spec in manifest.inputs}
    feed = {tensor: np.asarray(value, dtypes[tensor]) for tensor, value in case.send.items()}
    with tempfile.TemporaryDirectory() as folder:
        open_store(work.store).get_files(manifest.files, Path(folder))
        backend = manifest.toolchain.backend
        with closing(loader(backend).load(manifest, Path(folder), {})) as engine, engine.open_instance() as instance:
            found = instance.infer(feed, profile=0, outputs=tuple(case.want))
            answers = {output: np.array(value) for output, value in found.items()}
    wrong = {
        output: {"found": answers[output].tolist(), "shape": list(answers[output].shape)}
        for output, want in case.want.items()
        if not _is_right(answers[output], np.asarray(want), case.tolerance)
    }
    verdict = "wrong" if wrong else "right"
    return {"verdict": verdict, **wrong, "notes": list(manifest.notes), "verification": manifest.verification.reason}


def _is_right(found: Array, want: Array, tolerance: float) -> bool:
    if found.shape != want.shape:
        return False
    return bool(np.allclose(found.astype(np.float64), want.astype(np.float64), rtol=tolerance, atol=1e-6))


def _in_a_process(root: Path, backend: str, name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gpu.answers", str(root / name), "--backend", backend, "--case", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"verdict": "late", "message": f"not ready after {_SECONDS} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return {"verdict": "crashed", "message": f"exit status {done.returncode}: {done.stderr[-1500:]}"}
    return dict(json.loads(lines[-1]))


def main() -> None:
    """Run one case, or all of them into a record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.answers", description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--backend", default="tensorrt", choices=("tensorrt", "onnxruntime"))
    parser.add_argument("--case", choices=tuple(CASES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.case:
        work = Workplace(root=options.work, backend=options.backend)
        work.models.mkdir(parents=True, exist_ok=True)
        print(json.dumps(_run(work, options.case)))
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = dict(
            zip(CASES, pool.map(lambda name: _in_a_process(options.work, options.backend, name), CASES), strict=True)
        )
    for name, case in found.items():
        print(f"{name:32} {case['verdict']:24} {case.get('message', '')[:300]}".rstrip())
    if options.out:
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "command": f"python -m benchmarks.gpu.answers WORK --backend {options.backend}",
            "machine": describe_machine(),
            "cases": found,
        }
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
