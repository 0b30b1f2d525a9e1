"""A store with a real preparation in it, and requests for it."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.backends import Backend, Hardware, Precision, PrecisionPolicy, Toolchain
from enginesmith_contract.build_request import BuildOptions, BuildRequest
from enginesmith_contract.keys import EngineKeyInputs, PreparationKeyInputs, engine_key, preparation_key
from enginesmith_contract.preparation import Batching, Preparation, ReferenceSet
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.store_layout import preparation_pointer
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_contract.verification import VerificationPolicy
from enginesmith_runtime.engines.registry import installed_toolchains
from enginesmith_runtime.store.open import open_store

_DTYPES = {"tensor(float)": DType.FP32, "tensor(float16)": DType.FP16, "tensor(int64)": DType.INT64}

OCR_PROFILES: Mapping[str, Profile] = {
    "det": Profile(inputs={"x": ShapeRange(min=(1, 3, 64, 64), opt=(1, 3, 96, 160), max=(1, 3, 160, 160))}),
    "rec": Profile(inputs={"x": ShapeRange(min=(1, 3, 48, 40), opt=(2, 3, 48, 160), max=(4, 3, 48, 320))}),
    "cls": Profile(inputs={"x": ShapeRange(min=(1, 3, 48, 192), opt=(2, 3, 48, 192), max=(4, 3, 48, 192))}),
}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A store in a temporary folder and a scratch folder beside it."""

    store: Path
    work: Path

    @property
    def uri(self) -> str:
        """The store's URI."""
        return str(self.store)

    def prepare(
        self, model: Path, profile: Profile, *, precision: Precision = Precision.FP32, reference: Path | None = None
    ) -> str:
        """Store a preparation of `model` with references at min, opt and max; returns its key.

        Args:
            model: what the engine is built of.
            profile: its only profile.
            precision: what the model is said to be in.
            reference: the model that gives the reference answers; None: `model`.
        """
        store = open_store(self.uri)
        key = preparation_key(PreparationKeyInputs(source_digest="0" * 64, profiles=(profile,)))
        folder = self.work / "prepare"
        folder.mkdir(exist_ok=True)
        session = onnxruntime.InferenceSession(str(reference or model), providers=["CPUExecutionProvider"])
        references = []
        for point in ("min", "opt", "max"):
            inputs = {
                name: np.random.default_rng(7).random(getattr(shapes, point), dtype=np.float32)
                for name, shapes in profile.inputs.items()
            }
            names = [output.name for output in session.get_outputs()]
            outputs = dict(zip(names, session.run(names, inputs), strict=True))
            arrays = {f"input:{name}": array for name, array in inputs.items()}
            arrays |= {f"output:{name}": np.asarray(array) for name, array in outputs.items()}
            path = folder / f"{profile.name}-{point}.npz"
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            path.write_bytes(buffer.getvalue())
            (stored,) = store.put_files(folder, [path])
            references.append(ReferenceSet(profile=profile.name, point=point, file=stored))
        document = Preparation(
            preparation_key=key,
            source_digest="0" * 64,
            facts=ModelFacts(
                inputs=tuple(map(_spec, session.get_inputs())),
                outputs=tuple(map(_spec, session.get_outputs())),
                opset=17,
                size_bytes=model.stat().st_size,
            ),
            model=store.put_files(model.parent, [model]),
            profiles=(profile,),
            exercises=(),
            references=tuple(references),
            batching=Batching(proved=False),
            precision=PrecisionPolicy(default=precision),
        )
        store.create_pointer(preparation_pointer(key), document.to_json())
        return key

    def request(
        self,
        preparation: str,
        backend: Backend = Backend.ONNXRUNTIME,
        *,
        limit: float | None = None,
        timeout_seconds: float = 300.0,
        hardware: Hardware | None = None,
    ) -> BuildRequest:
        """Return a request for the installed toolchain of a backend."""
        toolchain = installed(backend)
        target = hardware or Hardware()
        inputs = EngineKeyInputs(
            preparation_key=preparation,
            backend=backend,
            backend_version=toolchain.version,
            cuda=toolchain.cuda,
            provider=toolchain.provider,
            gpu_product=target.product,
        )
        return BuildRequest(
            engine_key=engine_key(inputs),
            key_inputs=inputs,
            store=self.uri,
            toolchain=toolchain,
            hardware=target,
            options=BuildOptions(timeout_seconds=timeout_seconds),
            verification=VerificationPolicy(limit=limit),
        )

    def engines(self) -> list[str]:
        """Return the engine pointers in the store."""
        return list(open_store(self.uri).list_pointers("keys"))

    def scratch(self) -> list[str]:
        """Return what a build left in the scratch folder."""
        return sorted(path.name for path in self.work.iterdir() if path.name != "prepare")


def installed(backend: Backend) -> Toolchain:
    """Return the installed toolchain of a backend."""
    return next(one for one in installed_toolchains() if one.backend is backend)


def _spec(argument: onnxruntime.NodeArg) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape)
    return TensorSpec(name=argument.name, dtype=_DTYPES[argument.type], shape=shape)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An empty store and a scratch folder."""
    work = tmp_path / "work"
    work.mkdir()
    return Bench(store=tmp_path / "store", work=work)


@pytest.fixture
def small_model(tmp_path: Path) -> Path:
    """A model of one product: y = relu(x @ w), x of [-1, 4]."""
    return write_small_model(tmp_path / "small.onnx", np.float32)


SMALL_PROFILE = Profile(inputs={"x": ShapeRange(min=(1, 4), opt=(2, 4), max=(8, 4))})


def write_small_model(path: Path, dtype: type[np.floating], scale: float = 1.0) -> Path:
    """Write y = relu(x @ w) with inputs and outputs in FP32 and the product in `dtype`."""
    weights = (np.random.default_rng(3).standard_normal((4, 5)) * scale).astype(dtype)
    inner = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=inner, name="in"),
        helper.make_node("MatMul", ["a", "w"], ["b"], name="product"),
        helper.make_node("Relu", ["b"], ["c"], name="relu"),
        helper.make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT, name="out"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def small_request(bench: Bench, small_model: Path) -> BuildRequest:
    """A request for the small model on the CPU."""
    return bench.request(bench.prepare(small_model, SMALL_PROFILE))
