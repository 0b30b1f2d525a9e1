"""The documentation site: its navigation has every page once, and the recipes name files that exist."""

import re
from pathlib import Path
from typing import Any

import yaml

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
