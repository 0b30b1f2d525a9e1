"""The rows that `enginesmith matrix` prints: one TensorRT build each, with the results of the rules."""

from collections.abc import Iterable, Iterator
from typing import Final

from enginesmith_contract.backends import Backend, Hardware, Precision, Toolchain
from enginesmith_contract.errors import SpecError
from enginesmith_contract.matrix.alternatives import list_builds
from enginesmith_contract.matrix.judges import driver_floor
from enginesmith_contract.matrix.model import Matrix, Release, Source
from enginesmith_contract.matrix.query import CudaBuild, find_release
from enginesmith_contract.matrix.rules import MatrixQuery, check_all
from enginesmith_contract.matrix.versions import is_in_line, major_of, version_numbers
from enginesmith_contract.record import Record
from enginesmith_contract.verdicts import RuleAnswer, Verdict

__all__ = ["MatrixRow", "list_rows", "used_sources"]

# Rules about only the toolchain always apply; the others apply if the user gave the facts that they check.
_ALWAYS: Final = frozenset({"TensorRTKnown", "BuilderSupported", "CudaBuildExists", "PlatformSupported"})
_WORST_FIRST: Final = (Verdict.NO, Verdict.UNKNOWN, Verdict.YES)
_RTX_CUDA: Final = "13"


class MatrixRow(Record):
    """One build and the answers about it.

    Attributes:
        release: the line ("10.13.3"), or the version of TensorRT for RTX.
        version: in full where it is published.
        minimum_driver: the stricter of CUDA's floor and the release's own; None: not known.
        verdict: NO where any rule says so, else UNKNOWN where any does.
    """

    backend: Backend
    release: str
    version: str
    cuda: str | None
    minimum_driver: str | None
    verdict: Verdict
    answers: tuple[RuleAnswer, ...]

    def why(self) -> str:
        """Return in one line what decided, with what would make it a yes; empty on a yes."""
        deciding = [answer for answer in self.answers if answer.verdict is self.verdict is not Verdict.YES]
        return "; ".join(answer.found + (f" (wanted: {answer.wanted})" if answer.wanted else "") for answer in deciding)


def list_rows(
    matrix: Matrix, hardware: Hardware, precision: Precision | None, *, tensorrt: str | None, cuda: str | None
) -> tuple[MatrixRow, ...]:
    """Return the rows that fit first, then the doubtful and the refused ones, newest first in each.

    Args:
        matrix: the rows to judge.
        hardware: None in a field leaves out the rules that look at it.
        precision: None leaves out its rule.
        tensorrt: a version or the beginning of one; None: every release, and TensorRT for RTX.
        cuda: a version or a major; None: every build.

    Raises:
        SpecError: no release begins with `tensorrt`.
    """
    asked = _asked_rules(hardware, precision)
    query_of = {"hardware": hardware, "precision": precision or Precision.FP32}
    rows = []
    for build in _builds(matrix, tensorrt, cuda):
        toolchain = Toolchain(name="matrix", backend=Backend.TENSORRT, version=build.version, cuda=build.cuda)
        floor = driver_floor(matrix, build.release, build.cuda)
        answers = check_all(matrix, MatrixQuery.model_validate({"toolchain": toolchain, **query_of}))
        rows.append(_row(toolchain, build.release.line, floor.driver if floor else None, asked, answers))
    if tensorrt is None and major_of(cuda) in (None, _RTX_CUDA):
        version = matrix.tensorrt_rtx.version
        toolchain = Toolchain(name="matrix", backend=Backend.TENSORRT_RTX, version=version, cuda=_RTX_CUDA)
        floor = driver_floor(matrix, None, _RTX_CUDA)
        answers = check_all(matrix, MatrixQuery.model_validate({"toolchain": toolchain, **query_of}))
        rows.append(_row(toolchain, f"RTX {version}", floor.driver if floor else None, asked, answers))
    return tuple(sorted(rows, key=lambda row: _WORST_FIRST.index(row.verdict), reverse=True))


def used_sources(matrix: Matrix, rows: Iterable[MatrixRow]) -> tuple[Source, ...]:
    """Return the sources of every answer in the rows, in the matrix's order."""
    used = {source for row in rows for answer in row.answers for source in answer.sources}
    return tuple(source for source in matrix.sources if source.id in used)


def _asked_rules(hardware: Hardware, precision: Precision | None) -> frozenset[str]:
    asked = set(_ALWAYS)
    if hardware.driver is not None:
        asked.add("DriverFloor")
    if hardware.product is not None or hardware.compute_capability is not None:
        asked |= {"ComputeCapabilitySupported", "RtxTargetSupported"}
    if precision is not None:
        asked.add("PrecisionSupported")
    return frozenset(asked)


def _builds(matrix: Matrix, tensorrt: str | None, cuda: str | None) -> Iterator[CudaBuild]:
    for release, version in _releases(matrix, tensorrt):
        builds = [build._replace(version=version) for build in list_builds(release)]
        matching = [build for build in builds if cuda is None or _matches(build.cuda, cuda)]
        # A CUDA version that the release was not built for still gets its row: the rules say why not.
        yield from reversed(matching or [CudaBuild(release, version, cuda or "")])


def _releases(matrix: Matrix, tensorrt: str | None) -> list[tuple[Release, str]]:
    newest_first = tuple(reversed(matrix.releases))
    if tensorrt is None:
        return [(release, release.general_availability or release.line) for release in newest_first]
    within = [release for release in newest_first if is_in_line(version_numbers(release.line) or (), tensorrt)]
    if within:
        return [(release, release.general_availability or release.line) for release in within]
    release = find_release(matrix, tensorrt)
    if release is not None:
        return [(release, tensorrt)]
    raise SpecError(
        "the matrix has no such release",
        where=f"--tensorrt {tensorrt}",
        why=f"it has {matrix.releases[0].line} to {matrix.releases[-1].line}",
        remedy=f"name one of {', '.join(release.line for release in newest_first)}",
        reason="UnknownTensorRT",
    )


def _matches(built: str, asked: str) -> bool:
    return built == asked or asked == major_of(built) or built == major_of(asked)


def _row(
    toolchain: Toolchain, release: str, driver: str | None, asked: frozenset[str], answers: Iterable[RuleAnswer]
) -> MatrixRow:
    kept = tuple(answer for answer in answers if answer.rule in asked)
    verdict = next(verdict for verdict in _WORST_FIRST if any(answer.verdict is verdict for answer in kept))
    return MatrixRow(
        backend=toolchain.backend,
        release=release,
        version=toolchain.version,
        cuda=toolchain.cuda,
        minimum_driver=driver,
        verdict=verdict,
        answers=kept,
    )
