"""The InferenceEngine documents of the run, and where its files lie.

Each is an ordinary document: planned, prepared, built, verified and stored by the product itself.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu.resnet50 import write_resnet50

from enginesmith_cli.documents import Failures
from enginesmith_cli.local import LocalMachine, PreparedDocument
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.store_layout import engine_pointer
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_runtime.progress import Reporter, SilentReporter
from enginesmith_runtime.store.open import open_store

__all__ = ["DOCUMENTS", "OTHER_WEIGHTS", "REBUILDS", "SMALLEST", "Document", "Range", "Workplace"]

Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]


@dataclass(frozen=True, kw_only=True)
class Document:
    """One engine to build.

    Attributes:
        model: stem of the ONNX file.
        ranges: min, opt and max shape of the only input.
        precision: one word, or a mapping.
        quick: whether a short run has it too.
        everywhere: whether ONNX Runtime computes in the precision as well; FP32 takes its place otherwise.
    """

    name: str
    model: str
    tensor: str
    ranges: Range
    precision: str | Mapping[str, Any] = "fp32"
    build: Mapping[str, Any] = field(default_factory=dict)
    verification: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False
    everywhere: bool = False

    def engine(self, backend: str, *, epoch: int = 0) -> InferenceEngine:
        """Return the document, parsed."""
        low, opt, high = (list(shape) for shape in self.ranges)
        return InferenceEngine.model_validate(
            {
                "metadata": {"name": self.name},
                "spec": {
                    "model": {"uri": f"{self.model}.onnx"},
                    "precision": self.precision if self.everywhere or backend != "onnxruntime" else "fp32",
                    "profiles": [{"name": "only", "inputs": {self.tensor: {"min": low, "opt": opt, "max": high}}}],
                    "build": {**self.build, "epoch": epoch},
                    "verification": dict(self.verification),
                    "targets": [{"name": "only", "backend": backend}],
                },
            }
        )


def _images(batch: int) -> Shape:
    return (batch, 3, 224, 224)


def _pixels(batch: int) -> Shape:
    return (batch, 224, 224, 3)


def _square(side: int) -> Shape:
    return (1, 3, side, side)


def _line(batch: int, width: int) -> Shape:
    return (batch, 3, 48, width)


_RESNET: Final = (_images(1), _images(8), _images(32))
_CLS: Final = (_line(1, 192), _line(1, 192), _line(8, 192))
_DET: Final = (_square(320), _square(640), _square(960))

SMALLEST: Final = "cls-fp32"

_REC: Final = Document(
    name="rec-fp16",
    model="rec",
    tensor="x",
    ranges=(_line(1, 160), _line(1, 320), _line(6, 640)),
    precision="fp16",
    # Of probabilities, on noise; text is read from the largest alone.
    verification={"limit": 0.05},
    quick=True,
)

DOCUMENTS: Final = (
    # The first of all, so that it finds an empty timing cache: the build that its rebuild is held against.
    Document(name="det-fp32", model="det", tensor="x", ranges=_DET),
    Document(name=SMALLEST, model="cls", tensor="x", ranges=_CLS, quick=True),
    # Before the other ResNet-50, and so without a timing cache: the build that a refit is held against.
    Document(
        name="resnet50-refittable",
        model="resnet50",
        tensor="images",
        ranges=_RESNET,
        precision="fp16",
        build={"refittable": True},
        quick=True,
    ),
    Document(name="resnet50-fp16", model="resnet50", tensor="images", ranges=_RESNET, precision="fp16", quick=True),
    Document(
        name="resnet50-uint8",
        model="resnet50-uint8",
        tensor="images",
        ranges=(_pixels(1), _pixels(8), _pixels(32)),
        precision="fp16",
        quick=True,
    ),
    Document(name="cls-tf32", model="cls", tensor="x", ranges=_CLS, precision="tf32", quick=True),
    Document(name="cls-fp16", model="cls", tensor="x", ranges=_CLS, precision="fp16", quick=True),
    _REC,
    replace(_REC, name="rec-fp16-level5", build={"optimizationLevel": 5}, quick=False),
)

REBUILDS: Final = ("det-fp32", SMALLEST, "rec-fp16", "rec-fp16-level5")
"""Built a second time with the timing cache of the first, `build.epoch` raised."""

OTHER_WEIGHTS: Final = Document(
    name="resnet50-refitted",
    model="resnet50-other",
    tensor="images",
    ranges=_RESNET,
    precision="fp16",
    build={"refittable": True},
    quick=True,
)


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Folders of one run, and the backend that it is of."""

    root: Path
    backend: str
    reporter: Reporter = field(default_factory=SilentReporter)

    @property
    def models(self) -> Path:
        """ONNX files."""
        return self.root / "models"

    @property
    def store(self) -> str:
        """URI of the engine store."""
        return (self.root / "store").as_uri()

    @property
    def sections(self) -> Path:
        """What each section found, as JSON."""
        return self.root / "sections"

    def lay_out(self, real_models: Path) -> None:
        """Make the folders and the models, the three real ones by copying, and with them a timing cache."""
        self.sections.mkdir(parents=True, exist_ok=True)
        self.models.mkdir(exist_ok=True)
        for path in (*real_models.glob("*.onnx"), *real_models.glob("*.cache")):
            shutil.copyfile(path, self.models / path.name)
        if not (self.models / "resnet50.onnx").exists():
            write_resnet50(self.models / "resnet50.onnx")
            write_resnet50(self.models / "resnet50-other.onnx", seed=1)
            write_resnet50(self.models / "resnet50-uint8.onnx", uint8=True)

    def machine(self) -> LocalMachine:
        """Return the product's local mode on this workplace."""
        home = self.root / "home"
        home.mkdir(exist_ok=True)
        return LocalMachine(home=home, store=self.store, base=self.models, reporter=self.reporter)

    def prepare(self, engine: InferenceEngine) -> PreparedDocument:
        """Plan and prepare one document."""
        (document,) = self.machine().prepare_documents([engine], Failures(raise_at_once=True))
        return document

    def build(self, engine: InferenceEngine) -> Manifest:
        """Plan, prepare, build, verify and store one document."""
        machine = self.machine()
        (document,) = machine.prepare_documents([engine], Failures(raise_at_once=True))
        (built,) = machine.build_target(document, document.plan.targets[0])
        return built.manifest

    def manifest(self, name: str) -> Manifest:
        """Return what an earlier section built under this name."""
        key = (self.sections / f"{name}.key").read_text()
        document = open_store(self.store).read_pointer(engine_pointer(key))
        if document is None:
            raise LookupError(name)
        return Manifest.from_json(document)

    def remember(self, name: str, manifest: Manifest) -> None:
        """Keep the key for later sections."""
        (self.sections / f"{name}.key").write_text(manifest.engine_key)

    def has(self, name: str) -> bool:
        """Whether an earlier section built it."""
        return (self.sections / f"{name}.key").exists()

    @contextmanager
    def files(self, manifest: Manifest) -> Iterator[Path]:
        """Give a folder with the engine's files as a server opens them."""
        folder = self.root / "open" / f"{manifest.engine_key[:20]}-{os.getpid()}"
        store = open_store(self.store)
        references = tuple(reference.file for reference in manifest.references)
        store.get_files((*manifest.files, *manifest.plugins, *references), folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
