"""The README's way to a served engine, run as it is printed."""

import re
from collections.abc import Iterator

import pytest
from tests.cluster.access import Cluster
from tests.cluster.conftest import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("operator", "hardware")]

_NAMESPACE = "vision"
_MARK = "<!-- tests/cluster/test_readme.py runs these lines. -->"


@pytest.fixture
def without_vision(cluster: Cluster) -> Iterator[None]:
    """A cluster without the namespace that the README makes."""
    delete = ("delete", "namespace", _NAMESPACE, "--ignore-not-found", "--timeout=300s")
    cluster.kubectl(*delete)
    yield
    cluster.kubectl(*delete)


@pytest.mark.usefixtures("without_vision")
def test_the_commands_of_the_readme_serve_an_engine(cluster: Cluster) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(rf"{re.escape(_MARK)}\n```\n(.*?)```", text, re.DOTALL)
    assert block is not None
    # As a person's shell would: each command sees the last one's variables, and the first that fails ends it.
    done = cluster.run("bash", "-c", f"cd '{ROOT}'\nset -euo pipefail\n{block[1]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^output .* \[\d+, 2\] ", done.stdout, re.MULTILINE), done.stdout
    assert "NVIDIA-H100-80GB-HBM3" in done.stdout, "the refused target is not explained"
