"""Agreement of decoded answers on held-out samples: the same class, the same yes or no, the same id.

A good engine in FP16 or INT8 gives other values than FP32, but the same decoded answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from enginesmith_contract.tensors import TensorSpec
from enginesmith_contract.verification import Decode, OutputAgreement, OutputGate
from enginesmith_runtime.comparison.alarms import Similarity
from enginesmith_runtime.comparison.compare import as_floats, find_unlike, is_exact
from enginesmith_runtime.comparison.decoding import Array, Decoding, choose_decoding, count_answers

__all__ = ["AgreementMeter", "open_meters"]

_MOST_BYTES: Final = 32 << 20


@dataclass(kw_only=True)
class AgreementMeter:
    """Counts the answers of one output, one sample after the other.

    Attributes:
        spec: Specification of the output.
        decoding: How values are decoded to answers.
    """

    spec: TensorSpec
    decoding: Decoding
    _samples: int = 0
    _answers: int = 0
    _same: int = 0
    _worst: tuple[int, int, str] = (0, 0, "")
    _found: str | None = None
    _similarity: Similarity = field(default_factory=Similarity)

    @classmethod
    def of(cls, spec: TensorSpec, gate: OutputGate, references: Sequence[Array], tolerance: float) -> "AgreementMeter":
        """Return a meter with the decoding of the policy, or one from the references; see `choose_decoding`."""
        return cls(spec=spec, decoding=choose_decoding(spec, gate, references, tolerance))

    def add(self, sample: str, actual: Array, reference: Array) -> None:
        """Count the answers of one sample, and record a fault that decides by itself."""
        self._samples += 1
        found = find_unlike(actual, reference, self.spec.dtype)
        if found is not None:
            self._found = self._found or f"sample {sample!r}: {found}"
            return
        answers, same = count_answers(self.decoding, actual, reference, self.spec.dtype)
        self._answers += answers
        self._same += same
        if answers - same > self._worst[0]:
            self._worst = (answers - same, answers, sample)
        if not is_exact(self.spec.dtype):
            self._similarity.add(
                as_floats(actual, self.spec.dtype).ravel(), as_floats(reference, self.spec.dtype).ravel()
            )

    def result(self) -> OutputAgreement:
        """Return the result over all samples."""
        decoding, wrong = self.decoding, self._worst
        unproved = decoding.unproved or (None if self._answers else "no sample has an answer to compare")
        return OutputAgreement(
            output=self.spec.name,
            decode=decoding.decode,
            inferred=decoding.inferred,
            axis=decoding.axis if decoding.decode is Decode.ARGMAX else None,
            threshold=decoding.threshold if decoding.decode is Decode.THRESHOLD else None,
            samples=self._samples,
            answers=self._answers,
            agreement=self._same / self._answers if self._answers else None,
            worst=f"sample {wrong[2]!r} differs in {wrong[0]} of {wrong[1]}" if wrong[0] else None,
            unproved=unproved,
            cosine=self._similarity.cosine,
            mean_relative_error=self._similarity.mean_relative_error,
            sqnr_db=self._similarity.sqnr_db,
            found=self._found,
        )


def open_meters(
    outputs: Sequence[TensorSpec],
    gates: Mapping[str, OutputGate],
    paths: Sequence[Path],
    tolerances: Mapping[str, float],
) -> dict[str, AgreementMeter]:
    """Return a meter of each output. The references of only one output are in memory at a time.

    Args:
        outputs: Outputs of the engine.
        gates: Limits of the policy for them.
        paths: Paths of .npz files with an array `output:<name>` for each output.
        tolerances: Tolerances of outputs that are measures, as a share of their scale.
    """
    meters = {}
    for spec in outputs:
        references = list(_read_some(paths, f"output:{spec.name}"))
        gate = gates.get(spec.name, OutputGate())
        meters[spec.name] = AgreementMeter.of(spec, gate, references, tolerances[spec.name])
    return meters


def _read_some(paths: Sequence[Path], key: str) -> Iterator[Array]:
    """Yield an array of each file until there is enough for the inference, because a server has little free memory."""
    size = 0
    for path in paths:
        if size > _MOST_BYTES:
            return
        with np.load(path, allow_pickle=False) as archive:
            array = np.asarray(archive[key])
        size += array.nbytes
        yield array
