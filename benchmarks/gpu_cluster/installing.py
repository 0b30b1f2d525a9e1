"""Installs the product by its chart, with the TensorRT toolchains that are loaded, and uploads the models."""

import json
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu_cluster.documents import SHAPES
from benchmarks.gpu_cluster.workplace import NAMESPACE, ROOT, Workplace, models
from tests.cluster.engines import s3_secret
from tests.cluster.installation import SYSTEM

__all__ = ["LIES", "run"]

LIES: Final = {
    "another-version": {"version": "10.13.3", "cuda": "12.9"},
    "no-tensorrt": {"version": "10.12.0", "cuda": "12.9"},
    "another-cuda": {"version": "10.11.0", "cuda": "13.0"},
}
"""Catalog entries whose images are not what they say, by name; a later part asks for each."""

_PREFIX: Final = "enginesmith/runtime-"


def run(work: Workplace) -> None:
    """Install, and note how long it took."""
    values = _values(work)
    work.note(
        "installing", "toolchains", toolchains={name: one["version"] for name, one in values["toolchains"].items()}
    )
    begun = time.monotonic()
    helm = subprocess.check_output([ROOT / "hack/tool", "helm"], text=True).strip()
    done = work.cluster.run(
        *(helm, "upgrade", "--install", "enginesmith", ROOT / "charts/enginesmith", "--namespace", SYSTEM),
        *("--create-namespace", "--values", "-", "--wait", "--timeout", "150s"),
        stdin=json.dumps(values),
    )
    seconds = round(time.monotonic() - begun, 2)
    work.note("installing", "helm", seconds=seconds, exitStatus=done.returncode, error=done.stderr[-1000:])
    assert done.returncode == 0, done.stderr
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    work.cluster.apply(namespace, s3_secret(work.cluster, NAMESPACE))
    for model in SHAPES:
        work.cluster.upload(models() / f"{model}.onnx", f"s3://models/ocr/{model}.onnx")
    work.hand_out(work.room)


def _values(work: Workplace) -> dict[str, Any]:
    """Return the development cluster's values, with a toolchain for each image that has TensorRT, and lies."""
    printed = work.cluster.run(sys.executable, ROOT / "examples/cluster/values.py")
    assert printed.returncode == 0, printed.stderr
    values: dict[str, Any] = json.loads(printed.stdout)
    images: dict[str, str] = json.loads(Path(work.cluster.environment["ENGINESMITH_IMAGES"]).read_text())
    rows = tomllib.loads((ROOT / "runtime/toolchain/toolchains.toml").read_text())
    runtime = images["enginesmith/runtime"]
    tensorrt = None
    for name, image in images.items():
        row = rows.get(name.removeprefix(_PREFIX), {})
        if row.get("backend") == "tensorrt":
            tensorrt = image
            entry = {"backend": "tensorrt", "version": row["version"], "cuda": row["cuda"]}
            values["toolchains"][name.removeprefix(_PREFIX)] = {**entry, "image": image, "preparationImage": runtime}
    for name, claim in LIES.items():
        image = runtime if name == "no-tensorrt" or tensorrt is None else tensorrt
        entry = {"backend": "tensorrt", **claim, "image": image, "preparationImage": runtime}
        values["toolchains"][name] = entry
    return values
