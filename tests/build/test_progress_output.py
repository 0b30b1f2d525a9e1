"""Progress as a bar, as lines and as JSON."""

import io
import json
import re
import unicodedata

import pytest
from typing_extensions import override

from enginesmith_contract.errors import SpecError
from enginesmith_runtime.progress_output import (
    JsonReporter,
    OutputReporter,
    TerminalReporter,
    TextReporter,
    open_reporter,
)


class _Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    @override
    def isatty(self) -> bool:
        return True


def _run_stages(reporter: OutputReporter, detail: str = "") -> None:
    with reporter:
        for stage in ("fetch", "build", "verify", "store"):
            reporter.begin(stage, detail)
            for step in range(11):
                reporter.advance(step / 10, detail)
            reporter.end(bytes=3 << 20, passed=True)


def _screen_width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text if not unicodedata.combining(one))


def _counting_clock() -> "_Clock":
    return _Clock()


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.06
        return self.now


@pytest.mark.parametrize("columns", [1, 2, 20, 80, 300])
@pytest.mark.parametrize("detail", ["", "layer /model/conv1", "卷积层" * 40, "tab\tnew\nline\x1b[31m"])
def test_a_bar_never_leaves_its_line(columns: int, detail: str) -> None:
    stream = _Terminal()
    _run_stages(TerminalReporter(stream, _counting_clock(), lambda: columns), detail)
    lines = re.split(r"[\r\n]", stream.getvalue().replace("\x1b[K", ""))
    assert max(_screen_width(line) for line in lines) < max(columns, 2)
    assert not any(ord(character) < 32 for line in lines for character in line)


def test_one_bar_runs_over_all_stages_and_never_goes_back() -> None:
    stream = _Terminal()
    _run_stages(TerminalReporter(stream, _counting_clock(), lambda: 100))
    percents = [int(found) for found in re.findall(r"(\d+)% ", stream.getvalue())]
    assert percents == sorted(percents)
    assert percents[0] == 0
    assert percents[-1] >= 90
    assert stream.getvalue().count("\n") == 4
    assert stream.getvalue().endswith("\r\x1b[K")


def test_a_bar_is_drawn_at_most_ten_times_a_second() -> None:
    stream = _Terminal()
    reporter = TerminalReporter(stream, lambda: 0.0, lambda: 80)
    reporter.begin("build")
    for step in range(1000):
        reporter.advance(step / 1000)
    assert stream.getvalue().count("\r") == 1


def test_a_terminal_without_unicode_gets_a_bar_of_ascii() -> None:
    stream = _Terminal()
    stream.encoding = "ascii"
    _run_stages(TerminalReporter(stream, _counting_clock(), lambda: 80))
    assert stream.getvalue().isascii()


def test_a_log_gets_one_json_line_when_a_stage_begins_and_one_when_it_ends() -> None:
    stream = io.StringIO()
    _run_stages(JsonReporter(stream, lambda: 1.0), "x\ny")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["stage"], line["event"]) for line in lines[:4]] == [
        ("fetch", "begin"),
        ("fetch", "end"),
        ("build", "begin"),
        ("build", "end"),
    ]
    assert lines[1]["facts"] == {"bytes": 3 << 20, "passed": True}
    assert lines[1]["seconds"] == 0.0


def test_text_is_one_line_a_stage() -> None:
    stream = io.StringIO()
    _run_stages(TextReporter(stream, lambda: 1.0))
    assert stream.getvalue().splitlines()[1] == "build        0.0 s  bytes=3.0MiB passed=True"


@pytest.mark.parametrize(
    ("log_format", "is_terminal", "want"),
    [
        ("auto", True, TerminalReporter),
        ("auto", False, JsonReporter),
        ("text", True, TerminalReporter),
        ("text", False, TextReporter),
        ("json", True, JsonReporter),
        ("json", False, JsonReporter),
    ],
)
def test_the_format_and_the_stream_choose_the_reporter(
    log_format: str, *, is_terminal: bool, want: type[OutputReporter]
) -> None:
    assert type(open_reporter(log_format, _Terminal() if is_terminal else io.StringIO())) is want


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(SpecError) as refusal:
        open_reporter("yaml", io.StringIO())
    assert refusal.value.reason == "LogFormatUnknown"
