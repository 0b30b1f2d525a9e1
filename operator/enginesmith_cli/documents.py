"""Several documents in one command: names the document in each line, and continues after a failure."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from enginesmith_contract.errors import CancelledBuildError, EnginesmithError, SpecError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_runtime.progress import Fact, Reporter

__all__ = ["DocumentReporter", "Failures", "name_of", "one_document"]


def name_of(engine: InferenceEngine) -> str:
    """Return the name of a document in messages, with its namespace if it has one."""
    metadata = engine.metadata
    return f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name


def one_document(engines: Sequence[InferenceEngine], file: Path, name: str | None) -> InferenceEngine:
    """Return the document of a name; without a name, the only one.

    Raises:
        SpecError: there is no such document, or there are several.
    """
    names = [engine.metadata.name for engine in engines]
    wanted = name or (names[0] if len(names) == 1 else None)
    found = [engine for engine in engines if engine.metadata.name == wanted]
    if len(found) != 1:
        raise SpecError(
            "it is not clear which document to measure" if wanted is None else f"no single document is named {wanted}",
            where=str(file),
            why=f"it has {', '.join(names)}",
            remedy=f"add --name {names[0]}",
            reason="Usage",
        )
    return found[0]


class Failures:
    """Failures of single documents, printed when they happen.

    Args:
        raise_at_once: let the first failure end the command, to show its traceback.
    """

    def __init__(self, *, raise_at_once: bool = False) -> None:
        self._raise_at_once = raise_at_once
        self._first: EnginesmithError | None = None

    @property
    def exit_code(self) -> ExitCode:
        """Return the code of the first failure; OK where there was none."""
        return ExitCode.OK if self._first is None else self._first.exit_code

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Print a failure in the block under the name of its document, and continue after the block."""
        try:
            yield
        except CancelledBuildError:
            raise
        except EnginesmithError as error:
            if self._raise_at_once:
                raise
            self._first = self._first or error
            sentence = error.sentence()
            named = sentence if sentence.startswith((f"{name}:", f"{name}/")) else f"{name}: {sentence}"
            print(f"enginesmith: {named}", file=sys.stderr)


class DocumentReporter:
    """Progress on one document: every line names it."""

    def __init__(self, reporter: Reporter, name: str) -> None:
        self._reporter = reporter
        self._name = name

    def begin(self, stage: str, detail: str = "") -> None:
        """Begin a stage."""
        self._reporter.begin(stage, f"{self._name}: {detail}" if detail else self._name)

    def advance(self, fraction: float, detail: str = "") -> None:
        """Say how much of the stage is done."""
        self._reporter.advance(fraction, f"{self._name}: {detail}" if detail else self._name)

    def end(self, **facts: Fact) -> None:
        """End the stage."""
        self._reporter.end(document=self._name, **facts)
