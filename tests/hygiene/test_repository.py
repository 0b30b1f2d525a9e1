"""The house rules that no linter knows."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".proto", ".json", "", ".sh"}


def _tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return [ROOT / name for name in listing.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def _texts() -> list[Path]:
    return [path for path in _tracked() if path.suffix in _TEXT]


def test_no_file_names_a_package_registry_s_host_or_a_path_of_one_machine() -> None:
    hosts = "|".join(("files.python" + "hosted", "pypi" + r"\.org", "proxy.golang" + r"\.org", "repo1?.maven"))
    pattern = re.compile(rf"{hosts}|/(work|home|root)/[a-z]")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in _texts()
        # Archives that no package manager's client downloads need an address.
        if path != ROOT / "runtime/toolchain/toolchains.toml"
        for match in [pattern.search(path.read_text(errors="replace"))]
        if match
    ]
    assert found == []


def test_the_operator_folder_never_becomes_a_package_that_hides_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert [path.name for path in (ROOT / "operator").glob("*.py")] == []
    assert [path.name for path in (ROOT / "runtime").glob("*.py")] == []
    subprocess.run([sys.executable, "-c", "import collections, operator; operator.eq"], cwd=ROOT, check=True)


def test_no_test_folder_is_a_package_and_no_two_test_files_share_a_name() -> None:
    files = list((ROOT / "tests").rglob("*.py"))
    names = [path.name for path in files if path.name.startswith("test_")]
    assert [path for path in files if path.name == "__init__.py"] == []
    assert sorted({name for name in names if names.count(name) > 1}) == []


def _modules() -> list[Path]:
    return [
        path
        for path in _tracked()
        if path.suffix == ".py" and path.parts[len(ROOT.parts)] in {"operator", "runtime"} and "_pb2" not in path.name
    ]


@pytest.mark.parametrize("module", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_why_it_is_there_and_what_it_offers(module: Path) -> None:
    tree = ast.parse(module.read_text())
    assert ast.get_docstring(tree), "no module docstring"
    if module.name in {"__init__.py", "__main__.py"}:
        return
    names = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert "__all__" in names, "no __all__"


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    pattern = re.compile(r"mark\.(skip|xfail)|pytest\.(skip|xfail|importorskip)\(")
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if path != Path(__file__) and pattern.search(path.read_text())
    ]
    assert found == []


def test_every_test_of_the_cluster_is_marked() -> None:
    files = sorted((ROOT / "tests" / "cluster").glob("test_*.py"))
    pattern = re.compile(r"^pytestmark = .*\bmark\.cluster\b", re.MULTILINE)
    unmarked = [path.name for path in files if not pattern.search(path.read_text())]
    assert unmarked == []


def test_every_fake_is_listed_in_the_tests_readme() -> None:
    listed = (ROOT / "tests" / "README.md").read_text()
    used = {
        word
        for path in (ROOT / "tests").rglob("*.py")
        if path != Path(__file__)
        for word in re.findall(r"\bfake_\w+", path.read_text())
    }
    assert sorted(word for word in used if word not in listed) == []
