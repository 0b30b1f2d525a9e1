"""The English that users read: complete descriptions, and words that an engineer expects.

hack/words.yaml has the words, hack/figures counts them.
"""

import ast
import sys
from collections import Counter
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest
from api_schema.descriptions import attribute_docs

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.limits import Arithmetic
from enginesmith_contract.verification import VerificationPolicy
from enginesmith_operator.api.verification import VerificationSpec

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "operator" / "enginesmith_operator" / "api"


def _load_figures() -> ModuleType:
    loader = SourceFileLoader("figures", str(ROOT / "hack" / "figures"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[loader.name] = module  # dataclasses look their module up
    loader.exec_module(module)
    return module


FIGURES = _load_figures()


def test_every_description_of_the_crds_can_be_read_alone() -> None:
    descriptions = list(FIGURES.descriptions())
    assert len(descriptions) > 300
    assert [text for text in descriptions if FIGURES.is_fragment(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "Of the claim.",
        "That builds, by digest.",
        "which GPUs will do.",
        "Omitted: every taint.",
        "scratch memory that one tactic may use.",
        "Its value.",
        "Name of the claim",
        "Credentials.",
    ],
)
def test_a_fragment_is_recognized(text: str) -> None:
    assert FIGURES.is_fragment(text)


@pytest.mark.parametrize("text", ["Name of the claim.", "SHA-256 of the engine file.", "Ordinal of a pod."])
def test_a_phrase_is_no_fragment(text: str) -> None:
    assert not FIGURES.is_fragment(text)


@pytest.mark.parametrize("module", sorted(API.rglob("*.py")), ids=lambda path: path.relative_to(API).as_posix())
def test_every_attribute_and_argument_of_the_api_is_described_in_a_phrase(module: Path) -> None:
    found = [
        f"{name}: {text}"
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        for name, text in _entries(ast.get_docstring(node) or "")
        if FIGURES.FRAGMENT.match(text) or not text.endswith(".")
    ]
    assert found == []


def _entries(docstring: str) -> list[tuple[str, str]]:
    """Return the entries of the sections `Attributes:` and `Args:`, each with its text on one line."""
    entries: list[tuple[str, str]] = []
    in_section = False
    for line in docstring.splitlines():
        if not line.startswith(" ") and line:
            in_section = line in {"Attributes:", "Args:"}
        elif in_section and line.startswith("    ") and not line.startswith("     "):
            name, _, text = line.strip().partition(": ")
            entries.append((name, text))
        elif in_section and line.strip():
            name, text = entries[-1]
            entries[-1] = (name, f"{text} {line.strip()}")
    return entries


def test_no_folder_has_more_odd_words_than_it_is_allowed() -> None:
    allowed: dict[str, int] = FIGURES.WORDS["allowed"]
    hits: Counter[str] = Counter()
    places: dict[str, list[str]] = {}
    for path, count in FIGURES.odd_words(*allowed).items():
        name = path.relative_to(ROOT).as_posix()
        folder = max((each for each in allowed if name == each or name.startswith(f"{each}/")), key=len)
        hits[folder] += count
        places.setdefault(folder, []).extend([f"{name}: {count}"] * (count > 0))
    over = {folder: places[folder] for folder, most in allowed.items() if hits[folder] > most}
    assert over == {}, f"hits are {dict(hits)}; hack/words.yaml says what to write in place of each word"


def test_descriptions_and_the_crds_have_no_odd_word() -> None:
    allowed = FIGURES.WORDS["allowed"]
    assert allowed["crds"] == allowed["operator/enginesmith_operator/api"] == 0


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("policy", [VerificationPolicy, VerificationSpec])
def test_the_description_of_a_limit_gives_its_default_for_each_precision(
    policy: type[VerificationPolicy | VerificationSpec], precision: Precision
) -> None:
    groups = attribute_docs(policy)["limit"].partition(": ")[2].rstrip(".").split(", ")
    said = {
        name: float(limit)
        for limit, _, names in (one.partition(" for ") for one in groups)
        for name in names.split(" and ")
    }
    assert said[precision.value] == Arithmetic(precision=PrecisionPolicy(default=precision)).limit
