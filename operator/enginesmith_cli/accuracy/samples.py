"""The data that precisions are compared on: the user's samples, else the preparation's generated inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from enginesmith_contract.calibration import LEAST_SAMPLES, Calibration
from enginesmith_contract.preparation import Preparation
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.translate import model_source, precision_policy, preprocess
from enginesmith_runtime.fetch.data import data_source, fetch_data
from enginesmith_runtime.prepare.quantize.sample_files import select_files
from enginesmith_runtime.prepare.quantize.samples import Samples, open_samples
from enginesmith_runtime.prepare.runs.reference_runs import save_run
from enginesmith_runtime.progress import Reporter
from enginesmith_runtime.store.interface import Store

__all__ = ["SampleFiles", "Wanted", "choose_samples"]

_GENERATED: Final = "generated inputs"


@dataclass(frozen=True, kw_only=True)
class SampleFiles:
    """Samples as .npz files with arrays `input:<name>`, and `output:<name>` where the FP32 model's answers are known.

    Attributes:
        paths: one sample each.
        source: what they are, as a noun phrase.
    """

    paths: tuple[str, ...]
    source: str

    @property
    def are_generated(self) -> bool:
        """Whether they contain no data from the user."""
        return self.source == _GENERATED


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user asks for.

    Attributes:
        engine: the document.
        folder: samples that take the place of those that the document's calibration holds out; None: there are none.
        most: number of samples that are taken.
        base: folder that relative paths of the document start from.
        downloads: folder that keeps what was fetched.
    """

    engine: InferenceEngine
    folder: Path | None
    most: int
    base: Path
    downloads: Path


def choose_samples(
    wanted: Wanted, preparation: Preparation, store: Store, scratch: Path, reporter: Reporter
) -> SampleFiles:
    """Return the samples to compare on.

    Args:
        wanted: see `Wanted`.
        preparation: of the FP32 model.
        store: has the reference inputs of the preparation.
        scratch: an empty folder for the samples.
        reporter: gets the stage "fetch".

    Raises:
        enginesmith_contract.errors.SpecError: a sample cannot be read, or does not fit the model.
        enginesmith_contract.errors.SourceError: the data cannot be fetched.
        enginesmith_contract.errors.StoreError: the store lacks a reference.
    """
    calibration = precision_policy(wanted.engine.spec).calibration
    if wanted.folder is not None:
        given = {"source": str(wanted.folder), "digest": None, "max_samples": max(wanted.most, LEAST_SAMPLES)}
        asked = (calibration or Calibration(source=str(wanted.folder))).model_copy(update=given)
        path = _fetch(asked, wanted, reporter, Path.cwd())
        return SampleFiles(paths=_written(asked, path, wanted, preparation, scratch), source=f"samples of {path}")
    if calibration is not None:
        path = _fetch(calibration, wanted, reporter, wanted.base)
        paths = _written(calibration, path, wanted, preparation, scratch)
        return SampleFiles(paths=paths, source=f"held-out samples of {calibration.source}")
    files = [reference.file for reference in preparation.references]
    store.get_files(files, scratch)
    return SampleFiles(paths=tuple(str(scratch / file.path) for file in files), source=_GENERATED)


def _fetch(calibration: Calibration, wanted: Wanted, reporter: Reporter, base: Path) -> Path:
    source = data_source(calibration, model_source(wanted.engine.spec))
    select = partial(select_files, calibration=calibration)
    return fetch_data(source, wanted.downloads, reporter, select=select, base=base).path


def _written(
    calibration: Calibration, path: Path, wanted: Wanted, preparation: Preparation, scratch: Path
) -> tuple[str, ...]:
    """Write the samples to `scratch`: all of the user's folder, else those that are held out."""
    with open_samples(
        calibration,
        path,
        facts=preparation.facts,
        profiles=preparation.profiles,
        scratch=scratch,
        preprocess=preprocess(wanted.engine.spec) or (),
        least=LEAST_SAMPLES if wanted.folder is None else 1,
    ) as samples:
        paths = []
        for name, inputs in samples.read(_names(samples, wanted)):
            file = scratch / f"{quote(name, safe='[]')}.npz"
            save_run(file, inputs, {})
            paths.append(str(file))
    return tuple(paths)


def _names(samples: Samples, wanted: Wanted) -> Sequence[str]:
    names = samples.split().held_out if wanted.folder is None else samples.names
    return names[: wanted.most]
