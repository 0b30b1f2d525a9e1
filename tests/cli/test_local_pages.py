"""The commands of pages that need no cluster, as they are printed and in their order."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import onnx
import pytest
import yaml
from tests.chart.pages import DOCS, blocks, named_files, run_page
from tests.cli.conftest import CLS
from tests.prepare.oriented_classifier import samples, write_classifier
from tests.server.onnx_models import adder_model

pytestmark = pytest.mark.slow

HERE = "tests/cli/test_local_pages.py"
ROOT = DOCS.parent
# `up` serves until it is stopped, and a reader asks it from a second terminal: here the commands that follow do.
UP = """
enginesmith() {
  [ "$1" = up ] || { command enginesmith "$@"; return; }
  [ -z "${up-}" ] || { kill "$up"; wait "$up"; }
  command enginesmith "$@" > "$ENGINESMITH_HOME/up.log" 2>&1 & up=$!
  until grep -q ^Ready "$ENGINESMITH_HOME/up.log"; do
    kill -0 "$up" || { cat "$ENGINESMITH_HOME/up.log"; return 1; }
    sleep 0.2
  done
}
trap '[ -z "${up-}" ] || { kill "$up"; wait "$up"; }' EXIT
"""
ALONE = ("unshare", "--map-root-user", "--net", "bash", "-c", 'ip link set lo up; exec bash -c "$0"')
ENGINE = """\
apiVersion: enginesmith.io/v1alpha1
kind: InferenceEngine
metadata: {{name: {name}}}
spec:
  model: {{uri: model.onnx}}
  profiles:
    - inputs: {inputs}
  targets:
    - {{name: gpu, gpu: {{minMemory: 4Gi}}}}
    - {{name: cpu, backend: onnxruntime, standby: true}}
"""

Run = Callable[[str], CompletedProcess[str]]


def shell(folder: Path, home: Path, *program: str) -> Run:
    """Return what runs bash in a folder, with the commands of this environment and a home of its own."""
    state = home / "state"
    state.mkdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")  # what was fetched is not fetched again
    known = {"HOME": str(home), "XDG_CACHE_HOME": cache, "PATH": path}
    known |= {"ENGINESMITH_HOME": str(state), "ENGINESMITH_LOG_FORMAT": "text"}

    def run(text: str) -> CompletedProcess[str]:
        environment = os.environ | known
        return subprocess.run(
            [*program, text], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def alone(tmp_path: Path) -> Run:
    """A folder and a network of the test's own, where the default ports are free."""
    return shell(tmp_path, tmp_path, *ALONE)


def test_the_matrix_answers_what_its_page_asks(alone: Run) -> None:
    # A question that nothing fits ends with 11.
    run_page(DOCS / "matrix.md", HERE, alone, ends="0|11")


def test_the_keys_of_the_signatures_page_are_a_pair(tmp_path: Path, alone: Run) -> None:
    run_page(DOCS / "signatures.md", HERE, alone)
    public = (tmp_path / "vision.pub").read_text()
    assert public.startswith("-----BEGIN PUBLIC KEY-----")
    assert alone("openssl ec -in vision.pem -pubout").stdout == public


@pytest.mark.extended
def test_curl_asks_a_server_over_http_as_the_protocol_page_does(tmp_path: Path, alone: Run) -> None:
    onnx.save(adder_model(), tmp_path / "model.onnx")
    rows = "{min: [1, 4], opt: [1, 4], max: [4, 4]}"
    (tmp_path / "engine.yaml").write_text(ENGINE.format(name="adder", inputs=f"{{a: {rows}, b: {rows}}}"))
    begin = f"{UP}\nenginesmith up engine.yaml --http-address 127.0.0.1:8000"

    (answer,) = run_page(DOCS / "protocol.md", HERE, alone, begin).values()

    outputs = {one["name"]: one["data"] for one in yaml.safe_load(answer[answer.index("{") :])["outputs"]}
    assert outputs == {"sum": [2, 3, 4, 5], "difference": [0, 1, 2, 3]}


@pytest.mark.extended
def test_the_guide_for_the_edge_serves_an_engine(tmp_path: Path, ocr_models: Path, alone: Run) -> None:
    shutil.copy(ocr_models / "cls.onnx", tmp_path)
    (tmp_path / "engine.yaml").write_text(CLS)
    run_page(DOCS / "guides/edge.md", HERE, alone, UP)


@pytest.fixture
def stripes(tmp_path: Path) -> None:
    """The document of the page on precisions, for a small classifier, and a folder of its samples."""
    write_classifier(tmp_path / "model.onnx")
    (fragment,) = [one.text for one in blocks(DOCS / "precision.md") if "calibration: samples/}" in one.text]
    shape = "{image: {min: [1, 1, 20, 20], opt: [1, 1, 20, 20], max: [2, 1, 20, 20]}}"
    document = yaml.safe_load(ENGINE.format(name="stripes", inputs=shape))
    document["spec"] |= yaml.safe_load(fragment)["spec"]
    (tmp_path / "engine.yaml").write_text(yaml.safe_dump(document))
    for name in ("samples", "pages"):
        (tmp_path / name).mkdir()
        for sample, inputs in samples(2000, 40):
            np.savez(tmp_path / name / f"{sample}.npz", image=inputs["image"])


@pytest.mark.extended
@pytest.mark.usefixtures("stripes")
@pytest.mark.parametrize("page", ["precision.md", "accuracy.md", "tutorials/service-owner.md"])
def test_a_page_on_precisions_builds_and_compares_them(page: str, alone: Run) -> None:
    run_page(DOCS / page, HERE, alone, UP)


@pytest.mark.extended
@pytest.mark.usefixtures("ocr_models")
def test_the_quick_start_reads_a_picture(tmp_path: Path) -> None:
    printed = run_page(DOCS / "quickstart.md", HERE, shell(ROOT, tmp_path, *ALONE), UP)
    text = printed["python examples/ocr/ocr.py examples/ocr/image.png"]
    assert all(line in text for line in (ROOT / "examples/ocr/expected.txt").read_text().splitlines())


@pytest.mark.extended
def test_what_the_readme_installs_serves_its_engine(tmp_path: Path, ocr_models: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "operator", "runtime"):
        (checkout / name).symlink_to(ROOT / name)
    (document,) = [text for name, text in named_files(ROOT / "README.md") if name == "engine.yaml"]
    (checkout / "engine.yaml").write_text(document)
    shutil.copy(ocr_models / "cls.onnx", checkout / "model.onnx")
    kubectl = subprocess.check_output([ROOT / "hack/tool", "kubectl"], text=True).strip()
    run = shell(checkout, tmp_path, "bash", "-c")

    for page in (ROOT / "README.md", DOCS / "installation.md", DOCS / "kubectl-plugin.md"):
        begin = f"PATH=$PATH:{Path(kubectl).parent}\n[ ! -e ~/enginesmith ] || . ~/enginesmith/bin/activate"
        run_page(page, HERE, run, f"{UP}\n{begin}")
