"""One model in several precisions: as the product prepares them, and as ONNX Runtime's quantiser does by default."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from benchmarks.precision.tasks import Model, Task
from detect import Float32Array
from onnx.version_converter import convert_version
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.calibration import AutoKeep, Calibration
from enginesmith_contract.preparation import ModelSource, PreparationRequest
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.tensors import ModelFacts
from enginesmith_runtime.onnx_graphs.graph import hoist_constants
from enginesmith_runtime.prepare.jobs import Feed
from enginesmith_runtime.prepare.pipeline import prepare
from enginesmith_runtime.prepare.runs.reference_runs import Session
from enginesmith_runtime.progress import Reporter
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.open import open_store

__all__ = ["VARIANTS", "Variant", "Workshop"]

_POLICIES: Final[Mapping[str, PrecisionPolicy]] = {
    "fp32": PrecisionPolicy(),
    "fp16": PrecisionPolicy(default=Precision.FP16),
    "bf16": PrecisionPolicy(default=Precision.BF16),
    "int8": PrecisionPolicy(default=Precision.INT8),
    "int8 autoKeep": PrecisionPolicy(default=Precision.INT8, auto_keep=AutoKeep()),
}
_QUANTISER: Final = "onnxruntime"
VARIANTS: Final = (*_POLICIES, _QUANTISER)
_OPSET: Final = 17
_SECONDS: Final = 900.0
_QUANTISER_SAMPLES: Final = 24


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A model file with one input and one output; `kept` counts nodes in a higher precision."""

    path: Path
    size_bytes: int
    kept: int
    facts: ModelFacts

    def open(self) -> Model:
        """Return the model as a function; FP16 and BF16 are emulated, and nothing is optimised."""
        session, feed = Session(str(self.path), emulated=True, threads=1), Feed(facts=self.facts)
        (spec,), (made,) = self.facts.inputs, self.facts.outputs

        def run(tensor: Float32Array) -> Float32Array:
            return np.asarray(session.run(feed, {spec.name: tensor})[made.name], np.float32)

        return run


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Where variants of one model are made.

    Attributes:
        model: the ONNX file.
        folder: for everything that is made; a second run takes what is there.
    """

    task: Task[Any, Any]
    model: Path
    folder: Path
    reporter: Reporter

    def make(self, name: str) -> Variant:
        """Return a variant.

        Raises:
            enginesmith_contract.errors.EnginesmithError: the product refuses the model in this precision.
        """
        return self._quantised() if name == _QUANTISER else self._prepared(name)

    def _prepared(self, name: str) -> Variant:
        policy = _POLICIES[name]
        if policy.quantises:
            policy = policy.model_copy(update={"calibration": Calibration(source=str(self.calibration()))})
        low, usual, high = self.task.shapes
        request = PreparationRequest(
            source=ModelSource(uri=str(self.model)),
            profiles=(Profile(inputs={"x": ShapeRange(min=low, opt=usual, max=high)}),),
            precision=policy,
            seconds=_SECONDS,
        )
        store = self._store
        preparation = prepare(request, store, self.folder / "work", self.reporter)
        path = store.get_files(preparation.model, self.folder / name.replace(" ", "-"), private=True)
        size = sum(file.size_bytes for file in preparation.model)
        return Variant(path=path, size_bytes=size, kept=len(preparation.kept), facts=preparation.facts)

    def _quantised(self) -> Variant:
        """Quantise inputs and outputs of weighted operators with MinMax, which is how ONNX Runtime does it by default.

        Weights are quantised per channel: per tensor, which is its default, rec reads no line.
        """
        whole = self._prepared("fp32")
        folded, made = self.folder / "folded.onnx", self.folder / "quantised.onnx"
        # Scales for each channel are newer than the opset of the exports.
        model = convert_version(onnx.load(whole.path), _OPSET)
        hoist_constants(model)
        onnx.save(model, folded)
        quant_pre_process(str(folded), str(folded), skip_symbolic_shape=True)
        reader = _Reader(self.task, whole.facts.inputs[0].name)
        quantize_static(
            str(folded),
            str(made),
            reader,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv", "ConvTranspose", "Gemm", "MatMul"],
        )
        return Variant(path=made, size_bytes=made.stat().st_size, kept=0, facts=whole.facts)

    def calibration(self) -> Path:
        """Return a folder with the samples to calibrate with, one .npz file each."""
        folder = self.folder / "calibration"
        if not folder.exists():
            folder.mkdir(parents=True)
            for number, (tensor, _) in enumerate(self.task.samples(self.task.calibration, "calibration")):
                np.savez(folder / f"{number:04}.npz", x=tensor)
        return folder

    @property
    def _store(self) -> Store:
        return open_store(str(self.folder / "store"))


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
    """Samples for ONNX Runtime's quantiser."""

    def __init__(self, task: Task[Any, Any], name: str) -> None:
        self._inputs: Iterator[dict[str, Float32Array]] = (
            {name: tensor} for tensor, _ in task.samples(_QUANTISER_SAMPLES, "calibration")
        )

    def get_next(self) -> dict[str, Float32Array] | None:
        """Return the next sample; None: there are no more."""
        return next(self._inputs, None)
