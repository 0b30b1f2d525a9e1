"""What of the cluster runs, and how a shell reaches it."""

from pathlib import Path

from development_cluster import daemons
from development_cluster.errors import ClusterError
from development_cluster.layout import CONTROL, Layout
from development_cluster.programs import kubectl

__all__ = ["is_up", "shell_variables", "status"]


def is_up(layout: Layout) -> bool:
    """Return whether every program that was started still runs."""
    names = [path.name for path in layout.pids.glob("*")]
    return bool(names) and all(daemons.running(layout, name) for name in names)


def status(layout: Layout) -> str:
    """Return a table of the programs, the nodes as the API server sees them, and where to look further."""
    names = sorted(path.name for path in layout.pids.glob("*"))
    if not names:
        return "no cluster: hack/cluster up"
    rows = [(name, daemons.running(layout, name)) for name in names]
    lines = [f"{name:<26} {f'pid {found.pid}' if found else 'DOES NOT RUN'}" for name, found in rows]
    try:
        nodes = kubectl(layout, "get", "nodes", "-o=wide").rstrip()
    except ClusterError as error:
        nodes = str(error)
    images = layout.folder / "images.json"
    lines += ["", nodes, ""]
    lines += [f"kubeconfig  {layout.kubeconfig}", f"logs        {layout.logs}", f"registry    {CONTROL.registry}"]
    lines += [f"S3          {CONTROL.s3_url}, account in {layout.s3_credentials}"]
    lines += [f"images      {images if images.exists() else 'none: hack/cluster load'}"]
    return "\n".join(lines)


def shell_variables(layout: Layout) -> dict[str, str | Path]:
    """Return the variables that a shell or a test needs; PATH is a folder to put first."""
    return {
        "KUBECONFIG": layout.kubeconfig,
        "ENGINESMITH_REGISTRY": CONTROL.registry,
        "ENGINESMITH_S3_ACCOUNT": layout.s3_credentials,
        "ENGINESMITH_IMAGES": layout.folder / "images.json",
        "ENGINESMITH_AUDIT_LOG": layout.audit_log,
        "PATH": layout.binaries,
    }
