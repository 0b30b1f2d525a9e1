"""Accounts in files: the store's own, the model source's, and what a child gets of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from enginesmith_contract.environment import SOURCE_CREDENTIALS, STORE_CREDENTIALS
from enginesmith_runtime.credential_files import read_credentials, take_source_credentials, without_credentials
from enginesmith_runtime.store.settings import StoreSettings


def _secret(folder: Path, **keys: str) -> Path:
    """Lay out a Secret's volume as kubelet does: files are links into a folder of a version."""
    version = folder / "..2026_11_29"
    version.mkdir(parents=True)
    (folder / "..data").symlink_to(version.name)
    for key, value in keys.items():
        (version / key).write_text(value)
        (folder / key).symlink_to(f"..data/{key}")
    return folder


def test_the_store_s_account_is_read_from_files_and_goes_before_the_plain_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _secret(tmp_path / "store", AWS_ACCESS_KEY_ID="of-the-store\n", AWS_REGION="eu-1")
    monkeypatch.setenv(STORE_CREDENTIALS, str(folder))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-source")
    settings = StoreSettings.of_process()
    assert (settings.get("AWS_ACCESS_KEY_ID"), settings.region) == ("of-the-store", "eu-1")


def test_a_model_source_s_account_becomes_variables_but_for_what_would_load_code(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = _secret(
        tmp_path / "source", AWS_ACCESS_KEY_ID="file", OSS_ENDPOINT="file", PYTHONPATH="/models", LD_PRELOAD="x"
    )
    variables = {SOURCE_CREDENTIALS: str(folder), "OSS_ENDPOINT": "already"}
    take_source_credentials(variables)
    assert variables == {SOURCE_CREDENTIALS: str(folder), "OSS_ENDPOINT": "already", "AWS_ACCESS_KEY_ID": "file"}
    assert ["PYTHONPATH" in caplog.text, "LD_PRELOAD" in caplog.text] == [True, True]


def test_a_child_gets_no_account(tmp_path: Path) -> None:
    folder = _secret(tmp_path / "source", AWS_ACCESS_KEY_ID="file")
    variables = {SOURCE_CREDENTIALS: str(folder), STORE_CREDENTIALS: "/store", "AWS_ACCESS_KEY_ID": "file", "A": "1"}
    assert without_credentials(variables) == {"A": "1"}


def test_a_folder_that_is_not_there_has_no_account(tmp_path: Path) -> None:
    assert read_credentials(str(tmp_path / "absent")) == {}
    assert read_credentials(None) == {}


def test_an_isolated_process_loads_nothing_from_a_path_in_its_environment(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('foreign code')")
    variables = {**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, "-I", "-u", "-m", "enginesmith_runtime.prepare"]
    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "foreign code" not in done.stdout
    assert "no request was given" in done.stderr
