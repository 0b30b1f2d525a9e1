"""The commands of the tutorials that need a cluster, run in their order, with what they print."""

import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from tests.chart.pages import DOCS, named_files, run_page
from tests.cluster.access import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def without_leftovers(cluster: Cluster) -> Iterator[None]:
    """A cluster without what the tutorial makes."""
    cluster.kubectl("delete", "enginepolicy", "tutorial", "--ignore-not-found")
    cluster.kubectl("delete", "namespace", "tutorial", "--ignore-not-found", "--timeout=300s")
    yield
    cluster.kubectl("delete", "enginepolicy", "tutorial", "--ignore-not-found")


@pytest.mark.usefixtures("operator", "without_leftovers")
def test_the_commands_of_the_platform_team_s_tutorial_print_what_it_shows(cluster: Cluster, tmp_path: Path) -> None:
    page = DOCS / "tutorials/platform-team.md"
    for name, text in named_files(page):
        (tmp_path / name).write_text(text)
    path = Path(sys.executable).parent

    def run(program: str) -> CompletedProcess[str]:
        return cluster.run("bash", "-c", program)

    printed = run_page(page, "tests/cluster/test_tutorials.py", run, f"cd '{tmp_path}'; export PATH='{path}':$PATH")
    assert len(printed) > 10
