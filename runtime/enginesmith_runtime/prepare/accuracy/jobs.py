"""Job and result of a child process that compares two models."""

from collections.abc import Mapping
from typing import Literal

from enginesmith_contract.record import Record
from enginesmith_contract.tensors import ModelFacts
from enginesmith_contract.verification import OutputAgreement, OutputGate

__all__ = ["LayerError", "MeasureJob", "Measured"]


class MeasureJob(Record):
    """Run a prepared model with samples, and compare its outputs with those of the FP32 model.

    Attributes:
        reference: Path of the FP32 model.
        model: Path of the measured model. FP16 and BF16 are computed in FP32 and rounded.
        facts: Facts of the FP32 model.
        samples: Paths of .npz files with arrays `input:<name>`. A file has the percent-encoded name of its sample.
            Missing outputs of the FP32 model are added as `output:<name>`.
        gates: Decoding and limits by output.
        tolerances: Tolerances of outputs that are compared as values, by output.
        layers: Number of samples for the comparison of values inside the model; 0 to disable it.
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
        node: Name of the FP32 model's node that produces it.
        op: Operator of the node.
        tensor: Name of the value.
        sqnr_db: Signal-to-noise ratio in dB; None if the values are equal.
    """

    node: str
    op: str
    tensor: str
    sqnr_db: float | None = None


class Measured(Record):
    """Result of a `MeasureJob`. `layers` has the values that both models have, in the order of the nodes."""

    outputs: tuple[OutputAgreement, ...]
    layers: tuple[LayerError, ...] = ()
