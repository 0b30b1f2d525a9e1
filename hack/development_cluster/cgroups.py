"""One cgroup a node, in every hierarchy, so that nodes count and limit apart."""

import os
from pathlib import Path
from typing import Final

__all__ = ["delete_cgroups", "has_cgroup", "make_cgroups", "processes_in"]

_ROOT: Final = Path("/sys/fs/cgroup")
_UNIFIED: Final = _ROOT / "cgroup.controllers"


def make_cgroups(name: str) -> None:
    """Make the node's cgroup in each hierarchy of this machine (version 1), or in the one that there is (version 2)."""
    if _UNIFIED.exists():
        controllers = " ".join(f"+{controller}" for controller in _UNIFIED.read_text().split())
        (_ROOT / "cgroup.subtree_control").write_text(controllers)
        (_ROOT / name).mkdir(exist_ok=True)
        (_ROOT / name / "cgroup.subtree_control").write_text(controllers)
        return
    for hierarchy in _hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        # A cpuset without processors and memory takes no process.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (group / setting).exists():
                (group / setting).write_text((hierarchy / setting).read_text())


def has_cgroup(name: str) -> bool:
    """Return whether a hierarchy has the node's cgroup."""
    return any((hierarchy / name).exists() for hierarchy in _hierarchies())


def processes_in(name: str) -> set[int]:
    """Return the processes in the node's cgroup and below."""
    return {
        int(pid)
        for hierarchy in _hierarchies()
        for file in (hierarchy / name).rglob("cgroup.procs")
        for pid in file.read_text().split()
    }


def delete_cgroups(name: str) -> None:
    """Delete the node's cgroup and all below it; they hold no process any more."""
    for hierarchy in _hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            Path(folder).rmdir()


def _hierarchies() -> list[Path]:
    if _UNIFIED.exists():
        return [_ROOT]
    # net_cls,net_prio and the like are links to one folder.
    return sorted({path.resolve() for path in _ROOT.iterdir() if (path / "cgroup.procs").exists()})
