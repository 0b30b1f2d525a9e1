"""The release that the code says it is."""

import tomllib
from pathlib import Path

from enginesmith_contract.release import RELEASE


def test_the_release_is_that_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == RELEASE
