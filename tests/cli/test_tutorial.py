"""The data scientist's tutorial: its own document is planned, served and asked, by its own commands."""

import re
import shlex

import pytest
from tests.chart.pages import DOCS, blocks, commands, expected, named_files
from tests.cli.conftest import CommandLine

pytestmark = pytest.mark.slow

PAGE = DOCS / "tutorials/data-scientist.md"


def test_the_commands_of_the_data_scientist_s_tutorial_serve_an_engine(command_line: CommandLine) -> None:
    for name, text in named_files(PAGE):
        (command_line.folder / name).write_text(text)
    every = [one for block in blocks(PAGE) for one in commands(block)]
    (planned,) = [one for one in every if one.prints]
    lines = [shlex.split(one.line, comments=True) for one in every]
    (up,) = [words for words in lines if words[:2] == ["enginesmith", "up"]]
    (infer,) = [words for words in lines if words[:2] == ["enginesmith", "infer"]]

    said = command_line.run(*shlex.split(planned.line)[1:]).stdout
    with command_line.up(*up[2:]) as server:
        answer = command_line.run(*infer[1:], "--address", server.address)

    assert expected(planned.prints).match(said), said
    assert answer.returncode == 0, answer.stderr
    assert re.search(r"^output .* \[4, 2\] ", answer.stdout, re.MULTILINE), answer.stdout
