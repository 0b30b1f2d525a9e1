"""What the pages show: files, commands, and commands with what they print; and how a test runs these."""

import re
import shlex
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from subprocess import CompletedProcess

__all__ = [
    "DOCS",
    "EVERY_PAGE",
    "PAGES",
    "Block",
    "Command",
    "blocks",
    "commands",
    "expected",
    "named_files",
    "run_page",
]

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted((*(DOCS / "tutorials").glob("*.md"), *(DOCS / "guides").glob("*.md")))
EVERY_PAGE = sorted(
    (*DOCS.parent.glob("[A-Z]*.md"), *DOCS.rglob("*.md"), *(DOCS.parent / "charts").glob("*/README.md"))
)
_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<test>tests/\S+) runs these lines\. -->\n)?"
    r"^(?P<indent> *)```(?P<kind>\w*)\n(?P<text>.*?)^(?P=indent)```",
    re.DOTALL | re.MULTILINE,
)
_FILE = re.compile(r"# (\S+\.yaml)\b.*\n")
_COMMENT = re.compile(r"\s+# .*$", re.MULTILINE)
_BEGIN, _END = "\x1e", "\x1f"


class Block(NamedTuple):
    """One block of a page; `test`: the file of the test that runs it, as the comment above it says."""

    kind: str
    text: str
    test: str | None


class Command(NamedTuple):
    """One command, and the lines that it prints; `...` stands for anything."""

    line: str
    prints: str

    @property
    def plain(self) -> str:
        """The command in one line, without comments."""
        return " ".join(_COMMENT.sub("", self.line.replace("\\\n", " ")).split())


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page."""
    for found in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield Block(found["kind"], textwrap.dedent(found["text"]), found["test"])


def named_files(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the YAML files of a page whose first line names them."""
    for block in blocks(page):
        named = _FILE.match(block.text) if block.kind == "yaml" else None
        if named is not None:
            yield named[1], block.text


def commands(block: Block) -> Iterator[Command]:
    """Yield the commands of a console block, or of one with commands alone."""
    if block.kind == "console":
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            line, _, prints = part.partition("\n")
            yield Command(line, prints)
    elif block.kind in {"", "bash"}:
        line = ""
        for part in block.text.splitlines():
            line = f"{line}\n{part}" if line else part
            if not _continues(line):
                if Command(line, "").plain:
                    yield Command(line, "")
                line = ""


def _continues(line: str) -> bool:
    if line.endswith(("\\", "|")):
        return True
    try:
        shlex.split(line, comments=True)
    except ValueError:  # inside of quotes
        return True
    return False


def expected(prints: str) -> re.Pattern[str]:
    """Return what a command's output must match, however wide its columns are."""
    parts = (r"\s+".join(map(re.escape, part.split())) for part in prints.split("..."))
    return re.compile(".*".join(parts), re.DOTALL)


def run_page(
    page: Path, test: str, run: Callable[[str], "CompletedProcess[str]"], begin: str = "", *, ends: str = "0"
) -> dict[str, str]:
    """Run the commands that the page leaves to a test, in one shell and in their order; return what each printed.

    Args:
        page: whose blocks name the test.
        test: its file, from the root of the checkout.
        run: starts bash with a program.
        begin: of the program.
        ends: a pattern of the exit codes of commands whose output the page does not show.
    """
    shown = [one for block in blocks(page) if block.test == test for one in commands(block)]
    assert shown, f"no block of {page.name} names {test}"
    program = "".join(f"printf '{_BEGIN}'\n{one.line}\nprintf '{_END}%s' $?\n" for one in shown)
    done = run(f"exec 2>&1\nset -o pipefail\n{begin}\n{program}")
    printed = {}
    for one, part in zip(shown, done.stdout.split(_BEGIN)[1:], strict=True):
        said, _, code = part.rpartition(_END)
        right = expected(one.prints).match(said) if one.prints else re.fullmatch(ends, code)
        assert right, (page.name, one.plain, code, said)
        printed[one.plain] = said
    return printed
