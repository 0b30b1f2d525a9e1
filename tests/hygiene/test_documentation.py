"""The documentation: its site has every page once, pages name files that exist, and every command of a page was run."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.pages import EVERY_PAGE, blocks, commands

ROOT = Path(__file__).resolve().parents[2]


def _pages(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    children = entry.values() if isinstance(entry, dict) else entry
    return [page for child in children for page in _pages(child)]


def test_the_navigation_has_every_page_of_docs_once() -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    # What lies under records/ is the text that a generated page includes.
    paths = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    pages = [str(path) for path in paths if "records" not in path.parts]
    assert sorted(_pages(navigation)) == sorted(pages)


def test_the_recipes_name_files_that_exist() -> None:
    text = (ROOT / "docs" / "contributing" / "recipes.md").read_text(encoding="utf-8")
    named = {path for path in re.findall(r"`([\w./-]+)`", text) if "/" in path and "." in path.rpartition("/")[2]}
    roots = (ROOT, ROOT / "runtime" / "enginesmith_runtime")
    assert len(named) >= 20
    assert [path for path in sorted(named) if not any((root / path).exists() for root in roots)] == []


def _tails() -> set[str]:
    """Every file and folder of the sources, by each part of its path that may be written for it."""
    folders = (ROOT / name for name in ("operator", "runtime", "docs", "hack", "tests", "benchmarks", "charts", "crds"))
    paths = [path.relative_to(ROOT) for folder in folders for path in (folder, *folder.rglob("*"))]
    return {"/".join(path.parts[start:]) for path in paths for start in range(len(path.parts))}


def test_the_architecture_the_decisions_and_the_readmes_name_files_that_exist() -> None:
    pages = [ROOT / "docs/architecture.md", *(ROOT / "docs/adr").glob("*.md"), *ROOT.glob("[or]*/README.md")]
    named = {
        (path.strip("/"), page.name)
        for page in pages
        for path in re.findall(r"`([a-z][\w./-]*)`", page.read_text(encoding="utf-8"))
        if path.endswith((".py", ".yaml", "/"))
    }
    known = _tails()
    assert len(named) >= 100
    assert [one for one in sorted(named) if one[0] not in known] == []


_RECORD = ROOT / "tests/records/doc_commands.yaml"
_ROWS: dict[str, list[dict[str, Any]]] = yaml.safe_load(_RECORD.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [str(page.relative_to(ROOT)) for page in EVERY_PAGE])
def test_every_command_of_a_page_runs_in_a_test_or_has_a_row_that_says_what_was_seen(name: str) -> None:
    rows = [" ".join(line.split()) for row in _ROWS.get(name, ()) for line in row["commands"].splitlines()]
    left = [one.plain for block in blocks(ROOT / name) if block.test is None for one in commands(block)]

    without = [line for line in left if line not in rows]
    advice = "let a test run it (tests/README.md), or run it and say in tests/records/doc_commands.yaml what was seen"
    assert not without, f"{name}: no test runs `{without[0]}`, and it has no row: {advice}"
    stale = [line for line in rows if line not in left]
    assert not stale, f"tests/records/doc_commands.yaml: {name} has no command `{stale[0]}` without a test: delete it"


@pytest.mark.parametrize("name", [str(page.relative_to(ROOT)) for page in EVERY_PAGE])
def test_a_block_that_a_test_runs_names_a_test_that_names_the_page(name: str) -> None:
    for test in {block.test for block in blocks(ROOT / name) if block.test}:
        assert Path(name).name in (ROOT / test).read_text(encoding="utf-8"), (name, test)


@pytest.mark.parametrize(("name", "row"), [(name, row) for name, rows in _ROWS.items() for row in rows])
def test_a_row_of_commands_has_a_date_a_machine_and_what_was_seen_or_what_they_need(
    name: str, row: dict[str, Any]
) -> None:
    assert (ROOT / name).is_file(), f"no page {name}"
    kind = set(row) - {"commands"}
    assert kind in ({"test"}, {"date", "machine", "seen"}, {"needs", "checked"}), (name, row)
    if "date" in row:
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", str(row["date"])), (name, row)
    if "test" in row:
        file, _, test = row["test"].partition("::")
        assert re.search(rf"^def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), row["test"]
