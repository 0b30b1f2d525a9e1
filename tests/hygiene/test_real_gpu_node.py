"""The development cluster's node with a real GPU: when there is one, and the settings of NVIDIA's programs."""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

_HACK = Path(__file__).resolve().parents[2] / "hack"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_DRIVER = ("libcuda.so.1", "libnvidia-ml.so.1")
_FEATURES = """\
nvidia.com/gfd.timestamp=1795940000
nvidia.com/gpu.count=1
nvidia.com/gpu.product=NVIDIA-H200
nvidia.com/gpu.replicas=1
nvidia.com/cuda.driver-version.full=580.159.04
"""


@pytest.fixture(autouse=True)
def _hack(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(_HACK))
    yield
    for name in [name for name in sys.modules if name.startswith("development_cluster")]:
        del sys.modules[name]


def fake_machine(root: Path, devices: tuple[str, ...], libraries: tuple[str, ...], folder: str = _LIBRARIES) -> Path:
    """A tree with device files and libraries by name."""
    (root / "dev").mkdir(parents=True)
    (root / folder).mkdir(parents=True)
    for device in devices:
        (root / "dev" / device).touch()
    for library in libraries:
        (root / folder / library).touch()
    return root


@pytest.mark.parametrize(
    ("devices", "libraries", "want"),
    [
        ((), (), 0),
        ((), _DRIVER, 0),
        (("nvidiactl", "nvidia-uvm"), _DRIVER, 0),
        (("nvidia0", "nvidiactl"), ("libcuda.so.1",), 0),
        (("nvidia0", "nvidiactl", "nvidia-uvm"), _DRIVER, 1),
        (("nvidia0", "nvidia1", "nvidiactl"), _DRIVER, 2),
    ],
)
def test_a_gpu_is_a_device_file_and_a_driver(
    tmp_path: Path, devices: tuple[str, ...], libraries: tuple[str, ...], want: int
) -> None:
    specs = import_module("development_cluster.node_specs")
    nodes = specs.nodes_with_real_gpus(fake_machine(tmp_path, devices, libraries))
    assert sum(len(node.gpus["nvidia.com/gpu"]) for node in nodes) == want
    assert all(node.real and node.taints[0]["key"] == "nvidia.com/gpu" for node in nodes)


def test_the_driver_is_found_where_other_distributions_put_it(tmp_path: Path) -> None:
    specs = import_module("development_cluster.node_specs")
    assert specs.nodes_with_real_gpus(fake_machine(tmp_path, ("nvidia0",), _DRIVER, "usr/lib64"))


def test_containerd_hands_out_devices_by_cdi_on_a_node_with_a_real_gpu_alone(tmp_path: Path) -> None:
    specs = import_module("development_cluster.node_specs")
    nodes = import_module("development_cluster.nodes")
    (real,) = specs.nodes_with_real_gpus(fake_machine(tmp_path, ("nvidia0",), _DRIVER))
    assert "enable_cdi = true" in nodes.containerd_settings(real)
    assert "cdi" not in nodes.containerd_settings(specs.NODES[0])


def test_labels_are_what_gpu_feature_discovery_says_but_for_the_time_and_the_count() -> None:
    labels: dict[str, str] = import_module("development_cluster.real_gpus").labels_from(_FEATURES, 6)
    assert labels == {
        "feature.node.kubernetes.io/pci-10de.present": "true",
        "nvidia.com/gpu.count": "6",
        "nvidia.com/gpu.product": "NVIDIA-H200",
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/cuda.driver-version.full": "580.159.04",
    }


@pytest.mark.parametrize(("count", "want"), [(1, None), (6, 6)])
def test_the_plugin_shares_by_time_slicing_only_if_asked(count: int, want: int | None) -> None:
    settings: dict[str, Any] = import_module("development_cluster.real_gpus").plugin_settings(count)
    shared = settings.get("sharing", {}).get("timeSlicing", {}).get("resources", [{}])
    assert shared[0].get("replicas") == want
    assert json.loads(json.dumps(settings))["flags"] == {"migStrategy": "none"}


@pytest.mark.parametrize(
    ("told", "want"),
    [
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1", False),
        ("containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+b4", True),
        ("containerd github.com/containerd/containerd/v2 v2.1.3 c787fb98911740dd3ff2d0e45ce88cdf01410486", True),
        ("containerd containerd.io 1.7.28 b98a3aace656320842a23f4a392a33f46af97866", True),
        ("something else", False),
    ],
)
def test_cdi_needs_containerd_1_7(told: str, *, want: bool) -> None:
    assert import_module("development_cluster.real_gpus").knows_cdi(told) is want
