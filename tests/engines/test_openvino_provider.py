"""The provider openvino, in the environment of its own that its package needs."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from enginesmith_contract.backends import Backend, Toolchain
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import ModelSource, PreparationRequest
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.verification import VerificationStatus
from enginesmith_runtime.prepare.pipeline import prepare
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.open import open_store

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).resolve().parents[2]
_PROFILES = {
    "det": ShapeRange(min=(1, 3, 64, 64), opt=(1, 3, 96, 160), max=(1, 3, 160, 160)),
    "rec": ShapeRange(min=(1, 3, 48, 40), opt=(2, 3, 48, 160), max=(4, 3, 48, 320)),
    "cls": ShapeRange(min=(1, 3, 48, 192), opt=(2, 3, 48, 192), max=(4, 3, 48, 192)),
}

RunThere = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_there(tmp_path: Path) -> RunThere:
    """Return a runner of Python in the provider's environment; it must end well."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [_ROOT / "hack" / "with-openvino", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env=os.environ | {"TMPDIR": str(tmp_path), "ENGINESMITH_LOG_FORMAT": "json"},
        )
        assert done.returncode == 0, done.stderr
        return done

    return run


def _toolchain(run_there: RunThere) -> Toolchain:
    program = (
        "from enginesmith_runtime.engines.registry import installed_toolchains;"
        "print('\\n'.join(one.to_json().decode() for one in installed_toolchains()))"
    )
    (line,) = run_there("-c", program).stdout.splitlines()
    return Toolchain.from_json(line)


@pytest.mark.parametrize("name", ["det", "rec", "cls"])
def test_a_real_model_builds_and_answers_like_its_reference(
    name: str, ocr_models: Path, run_there: RunThere, tmp_path: Path
) -> None:
    toolchain = _toolchain(run_there)
    assert (toolchain.name, toolchain.provider) == ("onnxruntime-openvino", "openvino")
    store = open_store(str(tmp_path / "store"))
    preparation = prepare(
        PreparationRequest(
            source=ModelSource(uri=str(ocr_models / f"{name}.onnx")), profiles=(Profile(inputs={"x": _PROFILES[name]}),)
        ),
        store,
        tmp_path / "work",
        SilentReporter(),
    )
    inputs = EngineKeyInputs(
        preparation_key=preparation.preparation_key,
        backend=Backend.ONNXRUNTIME,
        backend_version=toolchain.version,
        provider=toolchain.provider,
    )
    request = BuildRequest(
        engine_key=engine_key(inputs), key_inputs=inputs, store=str(tmp_path / "store"), toolchain=toolchain
    )
    path = tmp_path / "request.json"
    path.write_bytes(request.to_json())
    done = run_there("-m", "enginesmith_runtime.build", str(path))
    manifest = Manifest.from_json(done.stdout)
    assert manifest.verification.status is VerificationStatus.PASSED
    providers = manifest.inspector["providers"]
    assert isinstance(providers, dict)
    assert "OpenVINOExecutionProvider" in providers, json.dumps(manifest.inspector)
