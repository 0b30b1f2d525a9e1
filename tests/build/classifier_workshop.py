"""A store with an INT8 classifier whose calibration is good or broken, for tests of the gate."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime as ort
from tests.prepare.oriented_classifier import SIZE, break_ranges, learn_ranges, quantise, samples, write_classifier

from enginesmith_contract.backends import Backend, Precision, PrecisionPolicy
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_contract.preparation import (
    ModelSource,
    Preparation,
    PreparationRequest,
    ReferenceKind,
    ReferenceSet,
)
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.store_layout import preparation_pointer
from enginesmith_contract.verification import Verification, VerificationPolicy
from enginesmith_runtime.build.make_engine import make_engine
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.build.wire import ChildJob
from enginesmith_runtime.engines.registry import installed_toolchains
from enginesmith_runtime.prepare.jobs import Feed
from enginesmith_runtime.prepare.pipeline import prepare
from enginesmith_runtime.prepare.quantize.first_fall import locate
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.open import open_store

__all__ = ["Workshop"]

_PROFILE = Profile(inputs={"image": ShapeRange(min=(1, 1, SIZE, SIZE), opt=(4, 1, SIZE, SIZE), max=(8, 1, SIZE, SIZE))})


class Workshop:
    """A store with the FP32 classifier's preparation, which INT8 preparations start from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = open_store(str(folder / "store"))
        self.classifier = write_classifier(folder / "stripes.onnx")
        self.ranges = learn_ranges(self.classifier)
        request = PreparationRequest(source=ModelSource(uri=str(self.classifier)), profiles=(_PROFILE,))
        self.plain = prepare(request, self.store, folder / "preparing", SilentReporter())
        self._session = ort.InferenceSession(self.classifier, providers=["CPUExecutionProvider"])

    def int8(self, how: str = "good", *, held_out: int = 40, step: int = 1) -> Preparation:
        """Return an INT8 preparation with ranges that are good or broken, and every `step`th sample held out."""
        name = f"{how}-{held_out}-{step}"
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        ranges = self.ranges if how == "good" else break_ranges(how, self.ranges)
        model = quantise(self.classifier, ranges, folder / "model.onnx")
        kept = list(samples(3000, held_out * step))[::step]
        fall = locate(self.classifier, model, Feed(facts=self.plain.facts), (inputs for _, inputs in kept))
        preparation = self.plain.model_copy(
            update={
                "preparation_key": sha256(name.encode()).hexdigest(),
                "model": self.store.put_files(folder, [model]),
                "precision": PrecisionPolicy(default=Precision.INT8),
                "references": (*self.plain.references, *(self._keep(folder, *sample) for sample in kept)),
                "first_fall": fall,
            }
        )
        self.store.create_pointer(preparation_pointer(preparation.preparation_key), preparation.to_json())
        return preparation

    def request(self, preparation: Preparation, **policy: object) -> BuildRequest:
        """Return a request for the CPU."""
        toolchain = next(one for one in installed_toolchains() if one.backend is Backend.ONNXRUNTIME)
        inputs = EngineKeyInputs(
            preparation_key=preparation.preparation_key,
            backend=toolchain.backend,
            backend_version=toolchain.version,
            provider=toolchain.provider,
        )
        return BuildRequest(
            engine_key=engine_key(inputs),
            key_inputs=inputs,
            store=self.store.uri,
            toolchain=toolchain,
            verification=VerificationPolicy.model_validate(policy),
        )

    def judge(self, preparation: Preparation, **policy: object) -> Verification:
        """Return the verdict on an engine that is made in this process and not stored."""
        with TemporaryDirectory(dir=self.folder) as folder:
            work = Path(folder)
            for name in ("engine", "references"):
                (work / name).mkdir()
            self.store.get_files((one.file for one in preparation.references), work / "references")
            job = ChildJob(
                request=self.request(preparation, **policy),
                preparation=preparation,
                model=str(self.store.get_files(preparation.model, work / "model")),
                output=str(work / "engine"),
                references=str(work / "references"),
                answer=str(work / "answer.json"),
            )
            return make_engine(job, SilentReporter(), lambda: False).verification

    def build(self, preparation: Preparation, **policy: object) -> Verification:
        """Return the verdict on an engine that is built into the store, or is there."""
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return build(self.request(preparation, **policy), work, SilentReporter()).verification

    def _keep(self, folder: Path, name: str, inputs: Mapping[str, np.ndarray]) -> ReferenceSet:
        (answer,) = self._session.run(None, dict(inputs))
        path = folder / f"{name}.npz"
        np.savez(path, **{"input:image": inputs["image"], "output:probabilities": answer})
        (file,) = self.store.put_files(folder, [path])
        return ReferenceSet(profile="default", point=name, file=file, kind=ReferenceKind.SAMPLE)
