"""Reads samples of calibration data, one dictionary of input arrays at a time, from files of any size.

    a.npz                   arrays by input name
    a.npy, a.bin, a.png     the model's only input
    a.ids.npy, a.mask.bin   the inputs `ids` and `mask` of one sample

An array with more rows along axis 0 than the smallest batch holds several samples, `a[0]`, `a[1]`, ...; only the rows
of one sample are read at a time. Raw tensors (.bin, .raw) have no header, so all dimensions except the first must be
fixed.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path

from enginesmith_contract.calibration import LEAST_SAMPLES, Calibration
from enginesmith_contract.errors import SpecError
from enginesmith_contract.preprocess import Preprocess
from enginesmith_contract.profiles import Profile
from enginesmith_contract.tensors import ModelFacts, TensorSpec
from enginesmith_runtime.prepare.quantize.jobs import Data
from enginesmith_runtime.prepare.quantize.sample_arrays import ArraySource, NpyStream, open_npz, open_raw
from enginesmith_runtime.prepare.quantize.sample_files import (
    ARRAYS,
    IMAGES,
    RAW,
    DataFiles,
    open_files,
    select_files,
    unreadable,
)
from enginesmith_runtime.prepare.quantize.sample_fit import Layout, Shapes, does_not_fit, lay_out, typed
from enginesmith_runtime.prepare.quantize.sample_images import ImageDecoder, ImageSource
from enginesmith_runtime.prepare.runs.inputs import Array

__all__ = ["Samples", "Split", "open_data", "open_samples"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Names of the samples that ranges are computed from, and of those that judge the result."""

    calibration: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Files of one sample or batch. `files` has the input of each, or None for an .npz file with all inputs."""

    key: str
    files: tuple[tuple[str | None, str], ...]


@dataclass(frozen=True, kw_only=True)
class _Model:
    """Properties of the model that samples must fit."""

    facts: ModelFacts
    profiles: tuple[Profile, ...]
    batched: bool
    images: ImageDecoder

    def spec(self, name: str) -> TensorSpec:
        return next(spec for spec in self.facts.inputs if spec.name == name)


class Samples:
    """The samples of one calibration; see `open_samples`.

    Attributes:
        names: Names of all used samples, in the order of file names and rows.
    """

    def __init__(self, files: DataFiles, calibration: Calibration, model: _Model, scratch: Path, least: int) -> None:
        self._files = files
        self._model = model
        self._scratch = scratch
        self._held_out = calibration.held_out
        self._least = least
        self._declares_images = calibration.images is not None
        selected = set(select_files(files.names, calibration))
        groups = _group([name for name in files.names if name in selected], model)
        most = calibration.max_samples
        kept = set(sorted(groups)[:most])
        self._groups = tuple(group for key, group in groups.items() if key in kept)
        pieces = {group.key: self._count(group) for group in self._groups}
        names = (name for key in sorted(pieces) for name in _piece_names(key, pieces[key]))
        self.names = tuple(islice(names, most))
        if not self.names:
            raise _no_data(files)
        if len(self.names) < least:
            raise SpecError(
                "there are too few samples to calibrate with",
                where=files.where,
                why=f"found {len(self.names)}",
                remedy=f"provide at least {least} samples that look like production data, better 200",
                reason="CalibrationTooFewSamples",
            )

    def split(self) -> Split:
        """Divide the samples by the held-out share. The same data is always divided in the same way.

        Raises:
            enginesmith_contract.errors.SpecError: `CalibrationTooFewSamples` if less than half of the least number of
                samples is left for the calibration.
        """
        order = sorted(self.names, key=lambda name: sha256(name.encode()).digest())
        count = min(max(1, round(len(order) * self._held_out)), len(order) - 1)
        left = len(order) - count
        if 2 * left < self._least:
            raise SpecError(
                "too few samples are left to calibrate with",
                where="precision.calibration.heldOut",
                why=f"{self._held_out:g} leaves {left} of {len(order)}",
                remedy="set a smaller share, such as 0.2, or provide more samples",
                reason="CalibrationTooFewSamples",
            )
        held_out = frozenset(order[:count])
        return Split(
            calibration=tuple(name for name in self.names if name not in held_out),
            held_out=tuple(sorted(held_out)),
        )

    def read(self, names: Collection[str] | None = None) -> Iterator[tuple[str, dict[str, Array]]]:
        """Yield name and inputs of the named samples (all if None), in the order of the data.

        Raises:
            enginesmith_contract.errors.SpecError: `CalibrationDataUnreadable` or `CalibrationDataDoesNotFit`.
        """
        wanted = frozenset(self.names if names is None else names)
        for group in self._groups:
            with self._open(group) as sources:
                layout = self._lay_out(group, sources)
                # All used names are among the first ones.
                pieces = list(islice(_piece_names(group.key, layout.pieces), len(self.names)))
                while pieces and pieces[-1] not in wanted:
                    pieces.pop()
                for name in pieces:
                    if name in wanted:
                        yield name, self._read_piece(sources, layout)
                    else:
                        layout.skip(sources)

    def refuse_unread_images(self) -> None:
        """Refuse a conversion of images that no file needs.

        Raises:
            enginesmith_contract.errors.SpecError: `CalibrationDataDoesNotFit`.
        """
        if self._declares_images and not any(_has_image(group) for group in self._groups):
            file = self._groups[0].files[0][1]
            raise does_not_fit(
                "precision.calibration.images has no effect",
                self._files.where,
                f"no used file is an image; the first one is {file}, whose values are used unchanged",
                f"remove the field and save the values that the model expects, or use images ({', '.join(IMAGES)})",
            )

    def _count(self, group: _Group) -> int:
        """Return the number of samples, from headers alone."""
        if _has_image(group):
            return 1
        with self._open(group) as sources:
            return self._lay_out(group, sources).pieces

    def _read_piece(self, sources: Mapping[str, ArraySource], layout: Layout) -> dict[str, Array]:
        arrays = {name: layout.read(name, source) for name, source in sources.items()}
        return {
            spec.name: typed(arrays[spec.name], spec, self._model.profiles, sources[spec.name].where)
            for spec in self._model.facts.inputs
        }

    def _lay_out(self, group: _Group, sources: Mapping[str, ArraySource]) -> Layout:
        model = self._model
        where = group.files[0][1]
        missing = [spec.name for spec in model.facts.inputs if spec.name not in sources]
        if missing:
            why = f"it has {', '.join(sources) or 'nothing'}"
            raise does_not_fit(f"the sample has no input {missing[0]}", where, why, "provide every input of the model")
        shapes: Shapes = {spec.name: sources[spec.name].shape for spec in model.facts.inputs}
        is_image = _has_image(group)
        return lay_out(shapes, model.facts, model.profiles, batched=model.batched, where=where, is_image=is_image)

    @contextmanager
    def _open(self, group: _Group) -> Iterator[dict[str, ArraySource]]:
        """Open all files of one sample or batch."""
        sources: dict[str, ArraySource] = {}
        known = {spec.name for spec in self._model.facts.inputs}
        with ExitStack() as stack:
            for name, file in group.files:
                if name is None:
                    arrays = stack.enter_context(open_npz(self._files, file, self._scratch))
                    found = {key: each for key, each in arrays.items() if key in known} or arrays
                else:
                    found = {name: self._open_file(stack, name, file)}
                twice = sorted(set(found) & set(sources))
                if twice:
                    raise does_not_fit(f"input {twice[0]} is in two files", file, f"sample {group.key}", "remove one")
                sources |= found
            yield sources

    def _open_file(self, stack: ExitStack, name: str, file: str) -> ArraySource:
        spec = self._model.spec(name)
        with unreadable(file):
            stream = stack.enter_context(self._files.open(file))
        if file.lower().endswith(IMAGES):
            return ImageSource(stream, file, spec, self._model.images)
        if file.lower().endswith(RAW):
            return open_raw(stream, file, spec, [profile.inputs.get(name) for profile in self._model.profiles])
        return NpyStream(stream, file)


@contextmanager
def open_samples(
    calibration: Calibration,
    path: Path,
    *,
    facts: ModelFacts,
    profiles: Sequence[Profile],
    scratch: Path,
    preprocess: Sequence[Preprocess] = (),
    batched: bool = True,
    least: int = LEAST_SAMPLES,
) -> Iterator[Samples]:
    """Open calibration data on the local disk, and check its headers against the model.

    Args:
        calibration: What is read, and how.
        path: Path of the folder, the archive or the file.
        facts: Facts of the model for the samples. Its inputs are pixels if it has a normalisation.
        profiles: Profiles. Every sample must fit at least one.
        scratch: Folder for the copy of one file of an archive.
        preprocess: Normalisation of the model.
        batched: Whether rows along axis 0 are independent. If so, samples have the fewest rows that a profile allows.
            If not, only arrays with too many rows are divided, into samples with the most rows.
        least: Smallest number of samples.

    Raises:
        enginesmith_contract.errors.SpecError: `CalibrationDataMissing`, `CalibrationDataUnreadable`,
            `CalibrationDataDoesNotFit` or `CalibrationTooFewSamples`.
    """
    images = ImageDecoder.of(calibration.images, facts, preprocess)
    model = _Model(facts=facts, profiles=tuple(profiles), batched=batched, images=images)
    with open_files(path) as files:
        yield Samples(files, calibration, model, scratch, least)


@contextmanager
def open_data(data: Data, facts: ModelFacts, scratch: Path) -> Iterator[Samples]:
    """Open the calibration data of a job. All its settings must have an effect; see `open_samples`."""
    with open_samples(
        data.calibration,
        Path(data.path),
        facts=facts,
        profiles=data.profiles,
        scratch=scratch,
        preprocess=data.preprocess,
        batched=data.batched,
    ) as samples:
        samples.refuse_unread_images()
        yield samples


def _group(names: Sequence[str], model: _Model) -> dict[str, _Group]:
    """Return the files of each sample by key, in the order of their first files."""
    found: dict[str, list[tuple[str | None, str]]] = {}
    for name in names:
        key, given = _read_name(name, model)
        found.setdefault(key, []).append((given, name))
    return {key: _Group(key=key, files=tuple(files)) for key, files in found.items()}


def _read_name(name: str, model: _Model) -> tuple[str, str | None]:
    """Return the key of a file's sample and the input in the file, or None for all inputs."""
    suffix = next(end for end in (*ARRAYS, *RAW, *IMAGES) if name.lower().endswith(end))
    stem = name[: -len(suffix)]
    if suffix == ".npz":
        return stem, None
    for spec in model.facts.inputs:
        for ending in (f".{spec.name}", f".{_UNSAFE.sub('_', spec.name)}"):
            if stem.endswith(ending):
                return stem.removesuffix(ending), spec.name
    if suffix in IMAGES:
        return stem, model.images.input_of(name)
    if len(model.facts.inputs) == 1:
        return stem, model.facts.inputs[0].name
    names = [spec.name for spec in model.facts.inputs]
    why = f"the model has the inputs {', '.join(names)}"
    raise does_not_fit(
        "the file's name does not contain its input", name, why, f"rename it to {stem}.{names[0]}{suffix}"
    )


def _has_image(group: _Group) -> bool:
    return any(file.lower().endswith(IMAGES) for _, file in group.files)


def _piece_names(key: str, pieces: int) -> Iterator[str]:
    return iter([key]) if pieces == 1 else (f"{key}[{number}]" for number in range(pieces))


def _no_data(files: DataFiles) -> SpecError:
    found = ", ".join(sorted(files.names)[:3])
    return SpecError(
        "there is no calibration data",
        where=files.where,
        why=f"found {found}" if found else "it is empty",
        remedy=f"provide files of the types {', '.join((*ARRAYS, *RAW, *IMAGES))}",
        reason="CalibrationDataMissing",
    )
