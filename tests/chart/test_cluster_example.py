"""The example for the development cluster: an engine that loads, and values that the chart takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from enginesmith_contract.backends import Backend
from enginesmith_operator.api.load import load_documents
from enginesmith_operator.planning.catalog import read_catalog

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "cluster"
DIGEST = "sha256:" + "0" * 64


def test_the_engine_has_two_gpu_products_an_absent_one_and_a_standby() -> None:
    path = EXAMPLE / "engine.yaml"
    (engine,) = load_documents(path.read_text(encoding="utf-8"), where=path.name)
    products = [target.gpu.product if target.gpu else None for target in engine.spec.targets]
    assert products == ["NVIDIA-A100-SXM4-80GB", "NVIDIA-L4", "NVIDIA-H100-80GB-HBM3", None]
    assert [target.standby for target in engine.spec.targets] == [False, False, False, True]
    assert {target.backend for target in engine.spec.targets} == {Backend.ONNXRUNTIME}


@pytest.mark.slow
def test_the_values_name_the_images_that_the_cluster_loaded(tmp_path: Path) -> None:
    names = ("enginesmith/operator", "enginesmith/runtime", "enginesmith/runtime-tensorrt-rtx")
    images = {name: f"registry.example/{name}@{DIGEST}" for name in names}
    (tmp_path / "images.json").write_text(json.dumps(images), encoding="utf-8")
    environment = os.environ | {"ENGINESMITH_IMAGES": str(tmp_path / "images.json")}
    run = subprocess.run(
        [sys.executable, EXAMPLE / "values.py"], env=environment, check=True, capture_output=True, text=True
    )
    values = json.loads(run.stdout)
    assert values["image"] == {"repository": "registry.example/enginesmith/operator", "digest": DIGEST}
    entries = {name: json.dumps(entry) for name, entry in values["toolchains"].items()}
    catalog = read_catalog(entries)
    assert catalog.problems == ()
    found = {entry.backend: entry.image for entry in catalog.entries.values()}
    assert found == {
        Backend.ONNXRUNTIME: images["enginesmith/runtime"],
        Backend.TENSORRT_RTX: images["enginesmith/runtime-tensorrt-rtx"],
    }
    (tmp_path / "values.json").write_text(run.stdout, encoding="utf-8")
    helm = subprocess.run([ROOT / "hack/tool", "helm"], check=True, capture_output=True, text=True).stdout.strip()
    chart = str(ROOT / "charts" / "enginesmith")
    subprocess.run([helm, "template", "enginesmith", chart, "--values", tmp_path / "values.json"], check=True)
