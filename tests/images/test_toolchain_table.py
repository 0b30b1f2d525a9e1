"""The toolchains that images can be built with, and the chart's values that are printed for them."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.backends import Backend
from enginesmith_operator.planning.catalog import read_catalog

ROOT = Path(__file__).resolve().parents[2]
ROWS: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "runtime/toolchain/toolchains.toml").read_text())
DIGEST = "sha256:" + "0" * 64
PRINT = """
import sys
from container_images.toolchains import read_toolchains
from container_images.values import print_values
image = "registry.example/enginesmith/{}@" + sys.argv[1]
rows = read_toolchains()
built = {name: (row, image.format(f"runtime-{name}")) for name, row in rows.items()}
print(print_values(image.format("operator"), image.format("runtime"), built), end="")
"""


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_locked_with_hashes_and_with_the_bindings_of_its_version(name: str) -> None:
    row = ROWS[name]
    lock = (ROOT / f"requirements/toolchain-{name}.txt").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
    for package in row["packages"]:
        wanted, _, version = package.partition("==")
        assert locked[wanted] == version
    assert lock.count("--hash=sha256:") >= len(locked)
    bindings = {package.name: package.cuda for package in traits(Backend(row["backend"])).packages}
    versions = {re.sub(r"\.post\d+$", "", locked[one]) for one in bindings if one in locked}
    assert versions == {row["version"]}
    (cuda,) = {bindings[one] for one in bindings if one in locked}
    assert row["cuda"].partition(".")[0] == cuda


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row["backend"] == "tensorrt"])
def test_the_libraries_of_tensorrt_are_pinned_or_come_with_a_base(name: str) -> None:
    row = ROWS[name]
    assert ("base" in row) != ("libraries" in row)
    if "libraries" in row:
        assert row["libraries"]["url"].startswith("https://")
        assert re.fullmatch("[0-9a-f]{64}", row["libraries"]["sha256"])


def test_no_lock_of_a_toolchain_has_what_the_runtime_has() -> None:
    def names(path: Path) -> set[str]:
        return set(re.findall(r"^([a-z0-9-]+)==", path.read_text(), re.MULTILINE))

    runtime = names(ROOT / "requirements/image-runtime.txt")
    for name in ROWS:
        assert names(ROOT / f"requirements/toolchain-{name}.txt").isdisjoint(runtime)


@pytest.mark.slow
def test_the_printed_values_are_what_the_chart_and_the_catalog_take(tmp_path: Path) -> None:
    printed = subprocess.run(
        [sys.executable, "-c", PRINT, DIGEST], cwd=ROOT / "hack", check=True, capture_output=True, text=True
    ).stdout
    values = yaml.safe_load(printed)
    assert values["image"] == {"repository": "registry.example/enginesmith/operator", "digest": DIGEST}
    catalog = read_catalog({name: yaml.safe_dump(entry) for name, entry in values["toolchains"].items()})
    assert catalog.problems == ()
    assert set(catalog.entries) == {"onnxruntime-cpu", *ROWS}
    for name, row in ROWS.items():
        entry = catalog.entries[name]
        assert (entry.backend, entry.version, entry.cuda) == (row["backend"], row["version"], row["cuda"])
        assert entry.image == f"registry.example/enginesmith/runtime-{name}@{DIGEST}"
        assert entry.preparation_image == f"registry.example/enginesmith/runtime@{DIGEST}"
    (tmp_path / "values.yaml").write_text(printed)
    helm = subprocess.run([ROOT / "hack/tool", "helm"], check=True, capture_output=True, text=True).stdout.strip()
    chart = ROOT / "charts/enginesmith"
    rendered = subprocess.run(
        [helm, "template", "enginesmith", chart, "--values", tmp_path / "values.yaml"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in ROWS:
        assert f"{name}: " in rendered
