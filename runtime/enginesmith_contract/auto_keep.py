"""Result of the search for nodes that are not quantised. The preparation stores it, so no build repeats the search."""

from enginesmith_contract.record import Record

__all__ = ["AutoKeepResult", "KeepSearch", "KeptPoint", "Sensitivity"]


class Sensitivity(Record):
    """Damage to the outputs if only this node is quantised.

    Attributes:
        node: Name in the prepared model.
        damage: Noise power over signal power, summed over the outputs.
        size_bytes: Size of the node's weight in INT8 or FP8, which is what keeping it adds.
    """

    node: str
    damage: float
    size_bytes: int


class KeptPoint(Record):
    """One trial of the search.

    Attributes:
        kept_nodes: Number of nodes that are not quantised.
        kept_bytes: Size of their weights in INT8 or FP8.
        agreement: Smallest agreement of decoded answers over the outputs.
        passed: Whether every output reached its limit.
    """

    kept_nodes: int
    kept_bytes: int
    agreement: float
    passed: bool


class KeepSearch(Record):
    """Search for one family of backends.

    Attributes:
        kept: Nodes that are not quantised, by name in the prepared model.
        reached: Whether every output reaches its limit with them.
        complete: Whether the search ended before its timeout.
        stopped_by: Bounds without which more nodes could be kept: `budget`, `maxNodes`, `timeout`.
        curve: Trials in their order.
    """

    kept: tuple[str, ...]
    reached: bool
    complete: bool
    stopped_by: tuple[str, ...] = ()
    curve: tuple[KeptPoint, ...]


class AutoKeepResult(Record):
    """Result of a search.

    Attributes:
        tensorrt: Search for TensorRT and TensorRT for RTX.
        onnxruntime: Search for ONNX Runtime if it has a model of its own; None if it does not.
        samples: Number of samples that agreement was measured on.
        weight_bytes: Size of all weights that can be quantised, in INT8 or FP8.
        ranking: Nodes in the order in which the search keeps them.
    """

    tensorrt: KeepSearch
    onnxruntime: KeepSearch | None = None
    samples: int
    weight_bytes: int
    ranking: tuple[Sensitivity, ...]

    def shortfall(self, name: str, search: KeepSearch) -> str | None:
        """Return why a search missed its target agreement and what ended it, or None if it reached the target.

        Args:
            name: Name of the backends that the search was for.
            search: One of the searches of this result.
        """
        if search.reached:
            return None
        if not search.curve:
            return f"precision.autoKeep had no time for a trial for {name}: a larger timeout may help"
        best = max(point.agreement for point in search.curve)
        bounds = " and ".join(search.stopped_by)
        end = (
            f"{bounds} ended the search: a larger {' or '.join(search.stopped_by)} may help"
            if bounds
            else "no bound ended the search, so more nodes do not help: choose a wider precision or better samples"
        )
        return (
            f"precision.autoKeep kept {len(search.kept)} of {len(self.ranking)} nodes for {name} and reached an"
            f" agreement of {best:.3g} on {self.samples} samples of the calibration, which is less than it aims at;"
            f" {end}"
        )

    @property
    def kept(self) -> tuple[str, ...]:
        """Return the nodes that are not quantised for TensorRT."""
        return self.tensorrt.kept

    @property
    def curve(self) -> tuple[KeptPoint, ...]:
        """Return the trials for TensorRT."""
        return self.tensorrt.curve
