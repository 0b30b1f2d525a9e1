"""What `enginesmith inspect KEY` shows of the preparation behind an engine."""

import json
from pathlib import Path

import pytest
from tests.contract.test_records import MANIFEST, PREPARATION

from enginesmith_cli.main import main
from enginesmith_contract.store_layout import engine_pointer, preparation_pointer
from enginesmith_runtime.store.open import open_store

WARNING = "FP16 was judged on generated values of x"


@pytest.fixture
def stored(tmp_path: Path) -> list[str]:
    """Return the words of `inspect` for an engine in a store that also has its preparation."""
    store = open_store(str(tmp_path / "store"))
    key, prepared = MANIFEST.engine_key, MANIFEST.key_inputs.preparation_key
    store.create_pointer(engine_pointer(key), MANIFEST.to_json())
    preparation = PREPARATION.model_copy(update={"warnings": (WARNING,), "kept": {"a": "why", "b": "why"}})
    store.create_pointer(preparation_pointer(prepared), preparation.to_json())
    return ["inspect", key[:12], "--store", str(tmp_path / "store")]


def test_inspect_shows_the_warnings_of_the_preparation(stored: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(stored) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"warning        {WARNING}" in lines
    assert "in FP32        nodes: 2 (--output json names all, with reasons)" in lines


def test_inspect_names_all_nodes_in_fp32_in_json(stored: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*stored, "--output", "json"]) == 0
    preparation = json.loads(capsys.readouterr().out)["preparation"]
    assert preparation == {"warnings": [WARNING], "kept": {"a": "why", "b": "why"}}


def test_an_engine_whose_preparation_is_gone_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(str(tmp_path / "store"))
    store.create_pointer(engine_pointer(MANIFEST.engine_key), MANIFEST.to_json())
    assert main(["inspect", MANIFEST.engine_key[:12], "--store", str(tmp_path / "store")]) == 0
    assert MANIFEST.engine_key in capsys.readouterr().out
