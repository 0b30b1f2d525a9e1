"""Documents that the tests of the types share."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent

import pytest

FOLDER = Path(__file__).resolve().parent

Documents = Callable[[str], str]


@pytest.fixture(scope="session")
def design_example() -> str:
    """The whole example, every section of it filled."""
    return (FOLDER / "design_example.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def every_field() -> str:
    """The documents of the reference page: every field, all of them right."""
    return (FOLDER.parent.parent / "docs" / "reference" / "every-field.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def document_with() -> Documents:
    """Make a whole document of some lines of `spec`; its first line of spec is line 5."""

    def make(spec: str) -> str:
        head = "apiVersion: enginesmith.io/v1alpha1\nkind: InferenceEngine\nmetadata: {name: resnet50}\nspec:\n"
        body = dedent(spec).strip("\n")
        model = "" if body.startswith("model:") else "model: {uri: model.onnx}\n"
        return head + indent(f"{body}\n{model}".lstrip("\n"), "  ")

    return make
