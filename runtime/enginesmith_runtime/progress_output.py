"""Writes progress to a terminal or a log: one bar for all stages, plain lines, or JSON lines.

    open_reporter(format, stream)   auto: a bar if the stream is a terminal, else JSON
      ├── TerminalReporter   one line, rewritten in place; finished stages stay above it
      ├── TextReporter       a line for each finished stage
      └── JsonReporter       a line when a stage begins and one with facts when it ends

The bar covers all stages of a command. Each stage has a share by its usual duration, and the bar never goes back.
"""

import json
import shutil
import time
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self, TextIO

from typing_extensions import override

from enginesmith_contract.errors import SpecError
from enginesmith_runtime.progress import Fact

__all__ = [
    "JsonReporter",
    "OutputReporter",
    "TerminalReporter",
    "TextReporter",
    "open_reporter",
]

# Shares of the bar in the order of the stages. The bar skips the share of an omitted stage.
_SHARES: Final[Mapping[str, int]] = {
    "fetch": 10,
    "check": 2,
    "exercise": 12,
    "cast": 4,
    "build": 50,
    "verify": 10,
    "store": 4,
    "load": 4,
    "warmUp": 4,
}
_BAR_CELLS: Final = 24
_INTERVAL_SECONDS: Final = 0.1
_KIB: Final = 1024
_MINUTE: Final = 60.0


class OutputReporter:
    """A Reporter that writes to a stream; a context manager that leaves the stream at the start of a line."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._stage = ""
        self._begun = 0.0

    def begin(self, stage: str, detail: str = "") -> None:
        """Begin a stage."""
        self._stage, self._begun = stage, self._clock()
        self._began(detail)

    def advance(self, fraction: float, detail: str = "") -> None:
        """Report the completed fraction of the stage, 0 to 1."""

    def end(self, **facts: Fact) -> None:
        """End the stage."""
        self._ended(self._clock() - self._begun, facts)
        self._stage = ""

    def close(self) -> None:
        """Leave the stream at the start of a line."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _began(self, detail: str) -> None:
        """Report the begin of a stage."""

    def _ended(self, seconds: float, facts: dict[str, Fact]) -> None:
        """Report the end of a stage."""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class JsonReporter(OutputReporter):
    """One JSON line when a stage begins and one when it ends. The last line shows the current state."""

    @override
    def _began(self, detail: str) -> None:
        self._line({"event": "begin", "detail": detail} if detail else {"event": "begin"})

    @override
    def _ended(self, seconds: float, facts: dict[str, Fact]) -> None:
        self._line({"event": "end", "seconds": round(seconds, 3), "facts": facts})

    def _line(self, fields: dict[str, object]) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._write(json.dumps({"time": stamp, "stage": self._stage, **fields}) + "\n")


class TextReporter(OutputReporter):
    """One plain line for each finished stage."""

    @override
    def _ended(self, seconds: float, facts: dict[str, Fact]) -> None:
        self._write(_stage_line(self._stage, seconds, facts) + "\n")


class TerminalReporter(OutputReporter):
    """One bar, rewritten in place at most ten times a second, each time in a single write."""

    def __init__(
        self,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        columns: Callable[[], int] = lambda: shutil.get_terminal_size().columns,
        shares: Mapping[str, int] = _SHARES,
    ) -> None:
        super().__init__(stream, clock)
        self._columns = columns
        self._shares = shares
        self._fraction = 0.0
        self._detail = ""
        self._next_draw = 0.0
        self._is_drawn = False
        encoding = (getattr(stream, "encoding", None) or "ascii").lower()
        self._full, self._empty = ("█", "░") if encoding.startswith("utf") else ("#", ".")

    @override
    def advance(self, fraction: float, detail: str = "") -> None:
        low, high = _span(self._stage, self._shares)
        self._fraction = max(self._fraction, low + (high - low) * min(1.0, max(0.0, fraction)))
        self._detail = detail
        if self._clock() >= self._next_draw:
            self._draw()

    @override
    def close(self) -> None:
        if self._is_drawn:
            self._write("\r\x1b[K")
            self._is_drawn = False

    @override
    def _began(self, detail: str) -> None:
        self._fraction = max(self._fraction, _span(self._stage, self._shares)[0])
        self._detail = detail
        self._draw()

    @override
    def _ended(self, seconds: float, facts: dict[str, Fact]) -> None:
        self._fraction = max(self._fraction, _span(self._stage, self._shares)[1])
        self._detail = ""
        line = _fit(_stage_line(self._stage, seconds, facts), self._columns() - 1)
        self._write(f"\r\x1b[K{line}\n")
        self._draw()

    def _draw(self) -> None:
        self._next_draw = self._clock() + _INTERVAL_SECONDS
        cells = round(self._fraction * _BAR_CELLS)
        bar = self._full * cells + self._empty * (_BAR_CELLS - cells)
        words = f"{bar} {self._fraction:4.0%} {self._stage} {self._detail}"
        # Leave one column free, because a full line would wrap on some terminals and could not be rewritten.
        self._write("\r" + _fit(words, self._columns() - 1) + "\x1b[K")
        self._is_drawn = True


def open_reporter(log_format: str, stream: TextIO, shares: Mapping[str, int] = _SHARES) -> OutputReporter:
    """Return the reporter for a format.

    Args:
        log_format: `auto` (a bar on a terminal, else JSON), `text` (a bar on a terminal, else plain lines) or `json`.
        stream: Stream for the progress.
        shares: Shares of the bar by stage, in the order of the stages.

    Raises:
        SpecError: The format is unknown.
    """
    match log_format:
        case "json":
            return JsonReporter(stream)
        case "auto" | "text" if stream.isatty():
            return TerminalReporter(stream, shares=shares)
        case "auto":
            return JsonReporter(stream)
        case "text":
            return TextReporter(stream)
        case _:
            raise SpecError(
                "no such log format",
                where="ENGINESMITH_LOG_FORMAT",
                why=f"{log_format!r} is not auto, text or json",
                remedy="use one of these",
                reason="LogFormatUnknown",
            )


def _span(stage: str, shares: Mapping[str, int]) -> tuple[float, float]:
    """Return the begin and the end of a stage on the bar. An unknown stage has no share."""
    total = sum(shares.values())
    before = 0
    for name, share in shares.items():
        if name == stage:
            return before / total, (before + share) / total
        before += share
    return 0.0, 0.0


def _stage_line(stage: str, seconds: float, facts: dict[str, Fact]) -> str:
    words = " ".join(_fact(name, value) for name, value in facts.items())
    return f"{stage:<9} {_duration(seconds):>8}  {words}".rstrip()


def _fact(name: str, value: Fact) -> str:
    if name.lower().endswith("bytes") and isinstance(value, int):
        return f"{name}={_size(value)}"
    if name == "digest" and isinstance(value, str):
        return f"{name}={value[:12]}"
    return f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} m {rest:02} s"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < _KIB:
            return f"{count:.0f}{unit}" if unit == "B" else f"{count:.1f}{unit}"
        count /= _KIB
    return f"{count:.1f}GiB"


def _fit(text: str, columns: int) -> str:
    """Return the part of `text` that fits. Control characters are removed, and wide characters count as two columns."""
    result: list[str] = []
    used = 0
    for character in text:
        if unicodedata.category(character).startswith("C"):
            continue
        width = 0 if unicodedata.combining(character) else 1
        if unicodedata.east_asian_width(character) in "WF":
            width = 2
        if used + width > columns:
            break
        used += width
        result.append(character)
    return "".join(result).rstrip()
