"""A document with a metric in a container: only a cluster runs it, and no command serves what it has not judged."""

import pytest
from tests.cli.conftest import CLS, CommandLine

from enginesmith_contract.exit_codes import ExitCode

METRIC = f"  verification: {{metricContainer: {{image: r/metric@sha256:{'5f' * 32}, atLeast: 0.9}}}}\n"


@pytest.mark.slow
def test_a_build_is_refused_before_the_model_is_fetched(command_line: CommandLine) -> None:
    (command_line.folder / "cls.yaml").write_text(CLS + METRIC)
    done = command_line.run("build", "cls.yaml")
    assert done.returncode == ExitCode.SPEC_INVALID
    assert "verification.metricContainer: the metric is a container, and only a cluster runs it" in done.stderr
    assert "fetch" not in done.stderr
