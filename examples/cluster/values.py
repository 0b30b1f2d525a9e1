#!/usr/bin/env python3
"""Prints the chart's values for the development cluster: its S3 server and the images of `hack/cluster load`."""

import json
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def locked_version(package: str, lock: str = "image-runtime") -> str:
    """Return the version of a package in a lock file."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{package}==([0-9.]+)", text, re.MULTILINE)
    if found is None:
        sys.exit(f"{package} is not locked")
    return found[1]


def main() -> None:
    """Print JSON, which is YAML."""
    named = os.environ.get("ENGINESMITH_IMAGES")
    if not named:
        sys.exit('the cluster\'s variables are not set: eval "$(hack/cluster env)"')
    images = json.loads(Path(named).read_text(encoding="utf-8"))
    repository, _, digest = images["enginesmith/operator"].partition("@")
    onnxruntime = {
        "backend": "onnxruntime",
        "version": locked_version("onnxruntime"),
        "image": images["enginesmith/runtime"],
    }
    toolchains = {"onnxruntime-cpu": onnxruntime}
    # Builds without a GPU, so that an engine of NVIDIA's own comes out; to serve it, a pod must find one.
    if "enginesmith/runtime-tensorrt-rtx" in images:
        toolchains["tensorrt-rtx-cu13"] = {
            "backend": "tensorrt-rtx",
            "version": locked_version("tensorrt-rtx-cu13", "toolchain-tensorrt-rtx"),
            "cuda": "13",
            "image": images["enginesmith/runtime-tensorrt-rtx"],
            "preparationImage": images["enginesmith/runtime"],
        }
    store = {
        "bucket": "engines",
        "endpoint": "http://10.243.0.1:9000",
        "region": "us-east-1",
        "secretRef": {"name": "s3"},
    }
    values = {
        "image": {"repository": repository, "digest": digest},
        "toolchains": toolchains,
        "store": {"default": {"s3": store}},
        # Tests add images to the catalog, from registries of this machine.
        "admission": {"pods": {"images": ["10.243.0.1:*"]}},
    }
    print(json.dumps(values, indent=2))


if __name__ == "__main__":
    main()
