"""A user's metric: a container that receives the outputs of an engine and the references, and returns a verdict.

/metric/data/index.json          MetricIndex: the samples, and the files of each
/metric/data/inputs/0000.npz     arrays under the names of the inputs
/metric/data/reference/0000.npz  arrays under the names of the outputs: outputs of the FP32 model
/metric/data/engine/0000.npz     arrays under the names of the outputs: outputs of the engine
/metric/result/result.json       {"value": 0.93, "passed": true, "message": "..."}: what the container writes
"""

import json
import math
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from enginesmith_contract.errors import VerificationError
from enginesmith_contract.record import Record
from enginesmith_contract.text import counted, encodable, one_line, shorten

__all__ = [
    "DATA_FOLDER",
    "INDEX_FILE",
    "MOST_RESULT_BYTES",
    "RESULT_FILE",
    "RESULT_FOLDER",
    "MetricContainer",
    "MetricIndex",
    "MetricSample",
    "MetricVerdict",
    "judge_result",
]

DATA_FOLDER: Final = "/metric/data"
"""Folder in the container with the samples. It is read-only."""
RESULT_FOLDER: Final = "/metric/result"
"""Folder in the container that receives the result."""
INDEX_FILE: Final = "index.json"
RESULT_FILE: Final = "result.json"
MOST_RESULT_BYTES: Final = 65_536
_LONGEST_MESSAGE: Final = 500


class MetricContainer(Record):
    """Container that judges an engine.

    Attributes:
        image: Image, pinned by digest.
        command: Entrypoint. If empty, that of the image.
        args: Arguments of the entrypoint.
        at_least: Smallest value that passes.
        at_most: Largest value that passes.
    """

    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    at_least: float | None = Field(default=None, ge=-1e15, le=1e15)
    at_most: float | None = Field(default=None, ge=-1e15, le=1e15)

    @property
    def bounds(self) -> str:
        """Return the bounds as text; empty if the container itself decides."""
        least = "" if self.at_least is None else f"at least {self.at_least:g}"
        most = "" if self.at_most is None else f"at most {self.at_most:g}"
        return " and ".join(part for part in (least, most) if part)


class MetricSample(Record):
    """One sample of a MetricIndex. Paths are relative to the index.

    Attributes:
        name: Name of the sample in the calibration data, or of the point of the profile.
        profile: Profile that it ran in.
        inputs: File with the inputs.
        reference: File with the FP32 model's outputs.
        engine: File with the engine's outputs.
    """

    name: str
    profile: str
    inputs: str
    reference: str
    engine: str


class MetricIndex(Record):
    """The file that a metric container reads first.

    Attributes:
        engine_key: Key of the engine.
        precision: Precision of the engine, such as "int8".
        held_out: Whether the samples are held-out ones of the calibration data; otherwise they are reference inputs.
    """

    schema_version: int = 1
    engine_key: str
    precision: str
    held_out: bool
    samples: tuple[MetricSample, ...]


class MetricVerdict(Record):
    """Verdict of a metric container on an engine.

    Attributes:
        image: Image that ran.
        value: Value of the metric; None if the container gave none.
        at_least: Smallest value that passed.
        at_most: Largest value that passed.
        passed: Whether the engine passed.
        message: Message of the container, as one line.
        samples: Number of samples that the container received.
    """

    image: str
    value: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    passed: bool
    message: str = ""
    samples: int = 0

    def sentence(self) -> str:
        """Return the verdict as text."""
        bounds = MetricContainer(image=self.image, at_least=self.at_least, at_most=self.at_most).bounds
        value = "no value" if self.value is None else f"{self.value:.6g}"
        allowed = f", {bounds} passes" if bounds else ""
        said = f": {self.message}" if self.message else ""
        verdict = "passes" if self.passed else "refuses"
        return (
            f"the metric {self.image} {verdict} the engine ({value}{allowed}; {counted(self.samples, 'sample')}){said}"
        )


class _Result(BaseModel):
    """The file that a container writes. It may contain more fields."""

    model_config = ConfigDict(extra="ignore", strict=True)

    value: float | None = None
    passed: bool | None = None
    message: str = ""


def judge_result(container: MetricContainer, data: bytes, samples: int) -> MetricVerdict:
    """Return the verdict of a result file.

    Args:
        container: Container with the bounds.
        data: Contents of the file.
        samples: Number of samples that the container received.

    Raises:
        VerificationError: the file is not a result.
    """
    result = _parse(container, data)
    if result.value is None and container.bounds:
        raise _no_result(container, f"it has no value, and the spec asks for {container.bounds}")
    if result.value is None and result.passed is None:
        raise _no_result(container, "it has neither value nor passed")
    if result.passed is None and not container.bounds:
        raise _no_result(container, "it does not say `passed`, and the spec has neither atLeast nor atMost")
    value = result.value
    low = -math.inf if container.at_least is None else container.at_least
    high = math.inf if container.at_most is None else container.at_most
    return MetricVerdict(
        image=container.image,
        value=value,
        at_least=container.at_least,
        at_most=container.at_most,
        passed=result.passed is not False and (value is None or low <= value <= high),
        message=shorten(encodable(one_line(result.message)), _LONGEST_MESSAGE),
        samples=samples,
    )


def _parse(container: MetricContainer, data: bytes) -> _Result:
    if len(data) > MOST_RESULT_BYTES:
        raise _no_result(container, f"it is larger than {MOST_RESULT_BYTES} bytes")
    try:
        document = json.loads(data)
        result = _Result.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise _no_result(container, f"{field}: {first['msg']}" if field else first["msg"]) from error
    except (ValueError, RecursionError) as error:
        raise _no_result(container, "it is not JSON") from error
    if result.value is not None and not math.isfinite(result.value):
        raise _no_result(container, "its value is not a finite number")
    return result


def _no_result(container: MetricContainer, why: str) -> VerificationError:
    return VerificationError(
        "the metric wrote no valid result",
        where="verification.metricContainer",
        why=f"{RESULT_FOLDER}/{RESULT_FILE} of {container.image}: {why}",
        remedy='make it write {"value": 0.93, "passed": true, "message": "..."}',
    )
