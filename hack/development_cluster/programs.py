"""The programs that the cluster runs: Go programs from pinned modules, and this system's packages."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from development_cluster.commands import run
from development_cluster.errors import ClusterError
from development_cluster.layout import ROOT, Layout

__all__ = [
    "IMAGE_PACKAGES",
    "build_tools",
    "kubectl",
    "link_program",
    "packed_tools",
    "require_packages",
    "require_root",
    "tool",
    "tools_cache",
]

_TOOLS: Final = (
    "etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy",
    "coredns", "registry", "versitygw", "kwok", "helm",
)  # fmt: skip

_REAL_GPU_TOOLS: Final = ("gpu-feature-discovery", "nvidia-cdi-hook", "nvidia-device-plugin")

# A file of the package, and the package's name in Debian and Ubuntu.
_PACKAGES: Final = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "openssl": "openssl",
    "nsenter": "util-linux",
    "ip": "iproute2",
}
# What images are made with; a cluster whose registry has them all does without.
IMAGE_PACKAGES: Final = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "/bin/busybox": "busybox-static"}


@cache
def tool(name: str) -> Path:
    """Return the path of a program that `hack/tool` builds; the first time takes minutes."""
    done = subprocess.run([ROOT / "hack" / "tool", name], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"hack/tool {name} ended with exit code {done.returncode}")
    return Path(done.stdout.strip())


def kubectl(layout: Layout, *arguments: str | Path, stdin: str | None = None) -> str:
    """Run kubectl as the cluster's administrator and return what it prints."""
    return run([tool("kubectl"), f"--kubeconfig={layout.kubeconfig}", *arguments], stdin=stdin)


def build_tools(*, real_gpus: bool) -> None:
    """Build all missing programs first, so that no later step waits for a compiler."""
    for name in (*_TOOLS, *(_REAL_GPU_TOOLS if real_gpus else ())):
        tool(name)


def packed_tools() -> list[Path]:
    """Return the programs that a machine with a GPU needs, and build what is not built yet."""
    return [tool(name) for name in (*_TOOLS, *_REAL_GPU_TOOLS)]


def tools_cache() -> Path:
    """Return the folder that keeps what was built, by version."""
    cache_folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_folder) / "enginesmith-dev" / "tools"


def link_program(layout: Layout, name: str) -> None:
    """Put a program where a shell's PATH leads, under its plain name; others may be about to run it."""
    link, program = layout.binaries / name, tool(name)
    if link.is_symlink() and link.readlink() == program:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(program)


def require_root() -> None:
    """Refuse to continue without root: nodes are namespaces, cgroups and bridges.

    Raises:
        ClusterError: this is not root.
    """
    if os.geteuid() != 0:
        raise ClusterError("a cluster needs root", remedy="run it with sudo -E, or in a virtual machine of its own")


def require_packages(layout: Layout, packages: Mapping[str, str] = _PACKAGES) -> None:
    """Install what is missing of this system's packages, each with one of its files.

    Raises:
        ClusterError: something is missing and apt-get is too.
    """
    missing = [package for name, package in packages.items() if shutil.which(name) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(f"missing programs: {', '.join(missing)}", remedy="install the packages of these names")
    log = layout.logs / "apt.log"
    run(["apt-get", "update"], log=log)
    run(
        ["apt-get", "install", "--yes", "--no-install-recommends", *missing],
        environment={"DEBIAN_FRONTEND": "noninteractive"},
        log=log,
    )
