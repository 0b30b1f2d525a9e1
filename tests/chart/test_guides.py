"""The tutorials and the guides: values render, documents load, labels mean what is said; options of all pages exist."""

import re
import shlex
import subprocess
import sys
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest
import yaml
from tests.chart.pages import DOCS, EVERY_PAGE, PAGES, blocks, commands, named_files

from enginesmith_contract.products import canonical_product
from enginesmith_operator.api.engine_policy import EnginePolicy
from enginesmith_operator.api.load import load_documents
from enginesmith_operator.planning.label_mapping import load_label_mapping

pytestmark = pytest.mark.slow

ROOT = DOCS.parent
OURS = {"enginesmith", "kubectl-enginesmith"}
PROGRAMS = {*OURS, "kubectl", "helm"}
GROUPS = {"store", "cache"}
FILES = [(page, name, text) for page in PAGES for name, text in named_files(page)]
LINES = [
    (str(page.relative_to(ROOT)), one.plain) for page in EVERY_PAGE for block in blocks(page) for one in commands(block)
]
ROW = re.compile(r"^\| `(?P<label>[^`]+)` \| `(?P<value>[^`]+)` \|(?: `(?P<product>[^`]+)` \|)?$", re.MULTILINE)
ROWS = [
    (page.stem, row["label"], row["value"], row["product"])
    for page in PAGES
    if page.parent.name == "guides"
    for row in ROW.finditer(page.read_text(encoding="utf-8"))
]
PRINTED = {
    "toolchains": {"ort": {"backend": "onnxruntime", "version": "1.32.0", "image": f"r.example/x@sha256:{'a' * 64}"}}
}


@cache
def tool(name: str) -> str:
    if name in OURS:
        return str(Path(sys.executable).with_name(name))
    run = subprocess.run([ROOT / "hack/tool", name], check=True, capture_output=True, text=True)
    return run.stdout.strip()


@cache
def help_of(*parts: str) -> str:
    program, *rest = parts
    asked = [[*rest, "--help"], *([["options"]] if program == "kubectl" else [])]
    runs = [subprocess.run([tool(program), *one], check=True, capture_output=True, text=True) for one in asked]
    return "".join(run.stdout for run in runs)


def values(name: str) -> bool:
    return name.startswith("values")


@pytest.mark.parametrize(("page", "text"), [(p.stem, t) for p, name, t in FILES if values(name)])
def test_the_values_of_a_guide_render(tmp_path: Path, page: str, text: str) -> None:
    for name, content in (("printed.yaml", yaml.safe_dump(PRINTED)), ("values.yaml", text)):
        (tmp_path / name).write_text(content)
    chosen = [word for name in ("printed.yaml", "values.yaml") for word in ("--values", str(tmp_path / name))]
    command = [tool("helm"), "template", "enginesmith", str(ROOT / "charts/enginesmith"), *chosen]

    run = subprocess.run(command, check=False, capture_output=True, text=True)

    assert run.returncode == 0, (page, run.stderr)


@pytest.mark.parametrize(("page", "text"), [(p.stem, t) for p, name, t in FILES if not values(name)])
def test_the_documents_of_a_tutorial_are_valid(page: str, text: str) -> None:
    document = yaml.safe_load(text)
    if document["kind"] == "EnginePolicy":
        assert EnginePolicy.model_validate(document, by_name=False).name
    elif document["kind"] == "InferenceEngine":
        assert load_documents(text, where=page)
    else:
        assert document["kind"] == "ResourceQuota"


@pytest.mark.parametrize(("page", "line"), LINES)
def test_the_options_of_a_command_exist(page: str, line: str) -> None:
    outer = re.sub(r"\$\([^()]*\)", "", line)  # without commands in its arguments
    for part in re.split(r"\s(?:\||&&|>)\s", outer):
        words = shlex.split(part)
        while re.match(r"\w+=", words[0]):  # a variable of this command alone
            words = words[1:]
        program = words[0].rpartition("/")[2]
        if (program, *words[1:2]) == ("kubectl", "enginesmith"):
            program, *words = "kubectl-enginesmith", *words[1:]
        if program not in PROGRAMS:
            continue
        # kubectl's namespace comes before the verb.
        parts = words[3:] if words[1] == "-n" else words[1:]
        named = [*takewhile(lambda word: not word.startswith("-"), parts)]
        known = help_of(program, *(named[: 1 + (parts[0] in GROUPS)] if program in OURS else named))
        for word in parts:
            option = word.partition("=")[0]
            if option.startswith("-") and option != "-":
                assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", known), (page, option)


@pytest.mark.parametrize(("page", "label", "value", "product"), ROWS)
def test_a_label_of_a_guide_means_the_product_that_the_table_names(
    page: str, label: str, value: str, product: str | None
) -> None:
    mapping = load_label_mapping()
    if product is None:
        resource = mapping.resource(label)
        assert resource is not None, page
        assert resource.product == value
    elif label == "nvidia.com/gpu.product":
        assert canonical_product(value) == product
    else:
        schemes = [one for one in mapping.schemes if one.product_label == label]
        found = {one.product for scheme in schemes for one in scheme.products if one.value == value}
        assert found == {product} or any(scheme.gfd_spelling and value == product for scheme in schemes)
