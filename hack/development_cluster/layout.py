"""Where the cluster keeps its files, and the addresses that it takes on this machine."""

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

__all__ = ["CONTROL", "ROOT", "ControlAddresses", "Layout", "default_folder"]

ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class ControlAddresses:
    """Addresses of shared services, on a bridge that nodes, pods and this machine can reach."""

    bridge: str = "es-control"
    host: str = "10.243.0.1"
    prefix_length: int = 24
    api_port: int = 6443
    registry_port: int = 5000
    s3_port: int = 9000
    services: str = "10.96.0.0/16"
    api_service: str = "10.96.0.1"
    pods: str = "10.244.0.0/16"
    domain: str = "cluster.local"

    @property
    def api_url(self) -> str:
        """The API server's address."""
        return f"https://{self.host}:{self.api_port}"

    @property
    def registry(self) -> str:
        """The registry's host and port, as image references name it (plain HTTP)."""
        return f"{self.host}:{self.registry_port}"

    @property
    def s3_url(self) -> str:
        """The S3 server's address."""
        return f"http://{self.host}:{self.s3_port}"


CONTROL: Final = ControlAddresses()


@dataclass(frozen=True)
class Layout:
    """The folders below the cluster's one folder.

    Attributes:
        folder: holds all that the cluster writes, except what `images` caches next to it.
    """

    folder: Path

    @property
    def logs(self) -> Path:
        """One file a process."""
        return self.folder / "logs"

    @property
    def pids(self) -> Path:
        """One file a process that runs in the background."""
        return self.folder / "pids"

    @property
    def certificates(self) -> Path:
        """Keys, certificates and the kubeconfig files made of them."""
        return self.folder / "certificates"

    @property
    def settings(self) -> Path:
        """Configuration files of the programs."""
        return self.folder / "settings"

    @property
    def data(self) -> Path:
        """What ends with the cluster: etcd's data, buckets."""
        return self.folder / "data"

    @property
    def nodes(self) -> Path:
        """One folder a node."""
        return self.folder / "nodes"

    @property
    def binaries(self) -> Path:
        """Links to kubectl and helm, for PATH."""
        return self.folder / "bin"

    @property
    def cache(self) -> Path:
        """What outlives `down`: image layers, the images' base, the registry's contents."""
        return self.folder.with_name(f"{self.folder.name}-cache")

    def cgroup(self, node: str) -> str:
        """Return the cgroup below which a node's pods are; two clusters in two network namespaces share none."""
        usual = "ENGINESMITH_CLUSTER_DIR" not in os.environ
        return f"enginesmith-{node}" if usual else f"enginesmith-{sha256(bytes(self.folder)).hexdigest()[:8]}-{node}"

    @property
    def audit_log(self) -> Path:
        """One JSON object a line for each request that the audit policy names."""
        return self.logs / "audit.log"

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self.folder / "kubeconfig"

    @property
    def s3_credentials(self) -> Path:
        """Environment variables with the S3 server's account, one a line."""
        return self.folder / "s3.env"

    def make(self) -> None:
        """Make the folders that every part writes to."""
        for folder in (self.logs, self.pids, self.certificates, self.settings, self.data, self.nodes, self.binaries):
            folder.mkdir(parents=True, exist_ok=True)


def default_folder() -> Path:
    """Return $ENGINESMITH_CLUSTER_DIR, or a folder in the user's cache."""
    if chosen := os.environ.get("ENGINESMITH_CLUSTER_DIR"):
        return Path(chosen).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "enginesmith-dev" / "cluster"
