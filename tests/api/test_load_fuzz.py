"""Whatever a file holds, reading it ends in engines or in a SpecError."""

import random
import string
from contextlib import suppress
from typing import Any

import pytest
import yaml

from enginesmith_contract.errors import SpecError
from enginesmith_operator.api.load import load_documents

ROUNDS = 150
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1 << 70,
    1.5,
    float("inf"),
    float("nan"),
    "",
    "x",
    "é\u2028",
    "1e-2",
    [],
    {},
    [[]],
    {"a": 1},
]
YAML_WORDS = [
    "-",
    " ",
    "\n",
    ":",
    "{",
    "}",
    "[",
    "]",
    "&a",
    "*a",
    "!",
    "|",
    ">",
    "'",
    '"',
    "#",
    "---\n",
    "<<",
    "?",
    "a",
    "1",
    "\t",
    ",",
]


def _load(text: str) -> None:
    with suppress(SpecError):
        load_documents(text, where="fuzz.yaml")


@pytest.mark.parametrize("seed", range(4))
def test_random_characters_never_raise_anything_else(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - a test that repeats itself
    for _ in range(ROUNDS):
        _load("".join(chr(rng.choice([rng.randrange(128), rng.randrange(0x11000)])) for _ in range(rng.randrange(60))))
        _load("".join(rng.choice(YAML_WORDS) for _ in range(rng.randrange(60))))


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_file_never_raises_anything_else(seed: int, design_example: str) -> None:
    rng = random.Random(seed)  # noqa: S311 - a test that repeats itself
    for _ in range(ROUNDS // 3):
        letters = list(design_example)
        for _ in range(rng.randrange(1, 4)):
            letters[rng.randrange(len(letters))] = rng.choice(string.printable)
        _load("".join(letters))


@pytest.mark.parametrize("seed", range(4))
def test_any_value_in_any_place_never_raises_anything_else(seed: int, every_field: str) -> None:
    rng = random.Random(seed)  # noqa: S311 - a test that repeats itself
    documents = [engine.to_document() for engine in load_documents(every_field, where="x")]
    for _ in range(ROUNDS // 3):
        document = yaml.safe_load(yaml.safe_dump(rng.choice(documents)))
        _damage(rng, document)
        _load(yaml.safe_dump(document, allow_unicode=True))


def _damage(rng: random.Random, value: Any) -> None:
    """Replace, add or remove something at a random place."""
    while isinstance(value, dict | list) and value:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
            value[key] = rng.choice(VALUES)
            if isinstance(value, dict) and rng.random() < 0.3:
                value[rng.choice(["extra", "min_replicas", "é"])] = rng.choice(VALUES)
            return
        value = inner
