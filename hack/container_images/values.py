"""The part of the chart's values that names the images."""

import json
import platform
import re
from collections.abc import Mapping

from development_cluster.layout import ROOT

from container_images.toolchains import ToolchainRow

__all__ = ["print_values"]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def print_values(operator: str, runtime: str, toolchains: Mapping[str, tuple[ToolchainRow, str]]) -> str:
    """Return YAML for `helm install --values`.

    Args:
        operator: image by digest.
        runtime: the runtime's image without a toolchain, by digest.
        toolchains: row and image, by digest, of each toolchain that was built.
    """
    repository, _, digest = operator.partition("@")
    entries = {"onnxruntime-cpu": {"backend": "onnxruntime", "version": _locked("onnxruntime"), "image": runtime}}
    for name, (row, image) in toolchains.items():
        versions = {"backend": row.backend, "version": row.version, "cuda": row.cuda}
        entries[name] = {**versions, "image": image, "preparationImage": runtime}
    lines = ["image:", f"  repository: {_text(repository)}", f"  digest: {_text(digest)}", "toolchains:"]
    for name, entry in entries.items():
        lines.append(f"  {name}:")
        lines += [f"    {field}: {_text(value)}" for field, value in entry.items()]
        lines.append(f"    platforms: [{_text(f'linux/{_ARCHITECTURES.get(platform.machine(), platform.machine())}')}]")
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    return json.dumps(value)


def _locked(package: str) -> str:
    text = (ROOT / "requirements" / "image-runtime.txt").read_text()
    (version,) = re.findall(rf"^{package}==([0-9.]+)", text, re.MULTILINE)
    return str(version)
