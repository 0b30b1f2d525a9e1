"""`--trusted-keys`: local commands that take signed models only, and what `inspect` says of a signed engine."""

import json
from pathlib import Path

import pytest
from tests.cluster.small_model import save_small_model
from tests.signing_keys import Key, make_key, sign_files

from enginesmith_cli.main import main
from enginesmith_contract.environment import ENGINE_KEYS, SIGNING_KEY
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.signatures import TrustedKeys

pytestmark = pytest.mark.slow

DOCUMENT = """
apiVersion: enginesmith.io/v1alpha1
kind: InferenceEngine
metadata: {name: small}
spec:
  model: {uri: small.onnx}
  profiles: [{name: rows, inputs: {x: {min: [1, 4], opt: [2, 4], max: [8, 4]}}}]
  targets: [{name: cpu, backend: onnxruntime}]
"""


@pytest.fixture
def key(tmp_path: Path) -> Key:
    """A key, its public key in `vision.pub`, and a document with its model."""
    made = make_key(tmp_path / "key.pem")
    (tmp_path / "vision.pub").write_text(made.public)
    save_small_model(tmp_path / "small.onnx")
    (tmp_path / "engine.yaml").write_text(DOCUMENT)
    return made


def run(command: str, tmp_path: Path, *options: str) -> int:
    trusted = ("--trusted-keys", str(tmp_path / "vision.pub"))
    return main([command, str(tmp_path / "engine.yaml"), "--home", str(tmp_path / "home"), *trusted, *options])


def test_a_model_has_to_be_signed_at_each_build_also_when_it_is_prepared_already(
    key: Key, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("plan", tmp_path) == ExitCode.OK
    assert "model.sig: the model is not signed" in capsys.readouterr().err
    assert run("build", tmp_path) == ExitCode.SOURCE_FAILED
    assert "a signature of one of the keys vision is required" in capsys.readouterr().err

    monkeypatch.setenv(SIGNING_KEY, str(key.path))
    monkeypatch.setenv(ENGINE_KEYS, TrustedKeys(keys={"vision": key.public}).to_json().decode())
    signature = tmp_path / "model.sig"
    signature.write_bytes(sign_files(key, {"small.onnx": (tmp_path / "small.onnx").read_bytes()}))
    assert run("build", tmp_path, "--output", "json") == ExitCode.OK
    (engine,) = json.loads(capsys.readouterr().out)
    assert main(["inspect", engine["engineKey"], "--home", str(tmp_path / "home")]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "signed with    key " in shown
    assert "built by       enginesmith build (enginesmith " in shown
    assert "built from     model sha256:" in shown

    signature.write_bytes(sign_files(key, {"small.onnx": b"another model"}))
    assert run("build", tmp_path) == ExitCode.SOURCE_FAILED
    assert "the signed sha256 of small.onnx is" in capsys.readouterr().err


@pytest.mark.usefixtures("key")
def test_a_document_that_names_a_signature_needs_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "engine.yaml"
    file.write_text(DOCUMENT.replace("small.onnx}", "small.onnx, signature: model.sig}"))
    assert main(["build", str(file), "--home", str(tmp_path / "home")]) == ExitCode.PLAN_REFUSED
    assert "no key may sign the model (trusted keys: none)" in capsys.readouterr().err


@pytest.mark.usefixtures("key")
def test_a_file_that_is_no_public_key_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "vision.pub").write_text("no key")
    assert run("build", tmp_path) == ExitCode.SPEC_INVALID
    assert "vision.pub" in capsys.readouterr().err
