"""Models signed by the real tools: model_signing of the OpenSSF, and cosign with a real registry."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fetch.test_fetch_registry import push, running_registry
from tests.signing_keys import make_key, sign_files

from enginesmith_contract.errors import SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_contract.signatures import COSIGN
from enginesmith_runtime.fetch.model import FetchedModel, fetch_model
from enginesmith_runtime.progress import SilentReporter

WriteModel = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.extended


def run(*command: str | Path, **variables: str) -> str:
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fetch(uri: str, signature: str, public: str, tmp_path: Path) -> FetchedModel:
    source = ModelSource(uri=uri, signature=signature, signers={"vision": public})
    return fetch_model(source, tmp_path / "fetched", SilentReporter())


@pytest.mark.parametrize("version", ["1.1.1"])
def test_what_model_signing_signs_is_taken_and_what_changes_then_is_refused(
    tmp_path: Path, write_model: WriteModel, version: str
) -> None:
    tool = Path(run(ROOT / "hack/venv", "model-signing")) / "bin/model_signing"
    assert version in run(tool, "--version")
    key, folder = make_key(tmp_path / "key.pem"), tmp_path / "model"
    folder.mkdir()
    model = write_model(folder / "m.onnx", weights="weights.bin")
    (tmp_path / "key.pub").write_text(key.public)
    run(tool, "sign", "key", folder, "--private_key", key.path, "--signature", folder / "model.sig")
    assert fetch(str(model), "model.sig", key.public, tmp_path).signed_by == "vision"

    # The other way round: the tool takes what the tests sign.
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".sig"}
    (tmp_path / "ours.sig").write_bytes(sign_files(key, files))
    ours = ("--public_key", tmp_path / "key.pub", "--signature", tmp_path / "ours.sig", "--ignore-paths")
    run(tool, "verify", "key", folder, *ours, folder / "model.sig")

    (folder / "weights.bin").write_bytes((folder / "weights.bin").read_bytes()[::-1])
    with pytest.raises(SourceError, match=r"weights\.bin") as caught:
        fetch(str(model), "model.sig", key.public, tmp_path)
    assert caught.value.reason == "SignatureDiffers"


@pytest.mark.parametrize("form", ["tag", "bundle"])
@pytest.mark.parametrize("version", ["v2.6.5"])
def test_what_cosign_signs_is_taken_and_what_changes_then_is_refused(
    tmp_path: Path, write_model: WriteModel, form: str, version: str
) -> None:
    cosign = run(ROOT / "hack/tool", "cosign")
    assert Path(cosign).parent.name.endswith(version)
    password = {"COSIGN_PASSWORD": "", "COSIGN_YES": "true"}
    run(cosign, "generate-key-pair", "--output-key-prefix", tmp_path / "key", **password)
    public = (tmp_path / "key.pub").read_text()
    write_model(tmp_path / "m.onnx", weights="weights.bin")
    files = {name: (tmp_path / name).read_bytes() for name in ("m.onnx", "weights.bin")}
    with running_registry(tmp_path) as registry:
        digest = push(registry, "v1", files)
        reference = f"{registry}/models/m@{digest}"
        uri = f"oci://{registry}/models/m:v1"
        with pytest.raises(SourceError) as caught:
            fetch(uri, COSIGN, public, tmp_path)
        assert caught.value.reason == "SignatureMissing"
        forms = {"tag": "--new-bundle-format=false", "bundle": "--new-bundle-format=true"}
        key = tmp_path / "key.key"
        run(cosign, "sign", "--key", key, "--tlog-upload=false", forms[form], reference, **password)
        assert fetch(uri, COSIGN, public, tmp_path).signed_by == "vision"
        with pytest.raises(SourceError) as caught:
            fetch(uri, COSIGN, make_key(tmp_path / "other.pem").public, tmp_path)
        assert caught.value.reason == "SignerUnknown"
        push(registry, "v1", files | {"weights.bin": files["weights.bin"][::-1]})
        with pytest.raises(SourceError) as caught:
            fetch(uri, COSIGN, public, tmp_path)
        assert caught.value.reason == "SignatureMissing"
