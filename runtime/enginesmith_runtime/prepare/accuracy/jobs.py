"""What a child that compares two models is asked, and what it answers."""

from collections.abc import Mapping
from typing import Literal

from enginesmith_contract.record import Record
from enginesmith_contract.tensors import ModelFacts
from enginesmith_contract.verification import OutputAgreement, OutputGate

__all__ = ["LayerError", "MeasureJob", "Measured"]


class MeasureJob(Record):
    """Run a prepared model with samples, and compare its answers with those of the FP32 model.

    Attributes:
        reference: path of the FP32 model.
        model: path of the model that is measured. FP16 and BF16 are computed in FP32 and rounded.
        facts: of the FP32 model.
        samples: paths of .npz files with arrays `input:<name>`, each named as its sample (percent-encoded). The FP32
            model's answers are added to a file that lacks them, as `output:<name>`.
        gates: how outputs are decoded, by output.
        tolerances: of outputs that are compared as values, by output.
        layers: number of samples that the values inside the model are compared with; 0: they are not compared.
    """

    job: Literal["measure"] = "measure"
    reference: str
    model: str
    facts: ModelFacts
    samples: tuple[str, ...]
    gates: Mapping[str, OutputGate] = {}
    tolerances: Mapping[str, float]
    layers: int = 0


class LayerError(Record):
    """Error of one value inside the model.

    Attributes:
        node: name of the FP32 model's node that makes it.
        op: its operator.
        tensor: the value's name.
        sqnr_db: signal to noise ratio in dB; None: the values are equal.
    """

    node: str
    op: str
    tensor: str
    sqnr_db: float | None = None


class Measured(Record):
    """Result of a `MeasureJob`; `layers` has the values that both models make, in the order of the nodes."""

    outputs: tuple[OutputAgreement, ...]
    layers: tuple[LayerError, ...] = ()
