"""What the cluster needs of this machine's network: bridges, forwarding, rules known by their comment."""

import json
from pathlib import Path
from typing import Final

from development_cluster.commands import attempt, run
from development_cluster.errors import ClusterError
from development_cluster.layout import CONTROL, Layout

__all__ = ["delete_bridge", "make_bridge", "our_rules", "owner", "prepare_host", "restore_host"]

_BRIDGES: Final = Path("/sys/class/net")
_PROGRAMS: Final = ("iptables", "ip6tables")
_COMMENT: Final = "enginesmith development cluster"

# Settings of the cluster (None: set by kubelet and kube-proxy), which are restored when it ends.
_SETTINGS: Final[dict[str, str | None]] = {
    "net/ipv4/ip_forward": "1",
    # A pod's answer to a pod of its own bridge must meet the address translation that the request met.
    "net/bridge/bridge-nf-call-iptables": "1",
    "net/netfilter/nf_conntrack_max": None,
    "net/netfilter/nf_conntrack_tcp_timeout_established": None,
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait": None,
    "net/ipv4/conf/all/route_localnet": None,
    "vm/overcommit_memory": None,
    "vm/panic_on_oom": None,
    "kernel/panic": None,
    "kernel/panic_on_oops": None,
    "kernel/keys/root_maxkeys": None,
    "kernel/keys/root_maxbytes": None,
    # Each of a few hundred watched folders and sockets takes one of root's 128.
    "fs/inotify/max_user_instances": "1024",
}
# Tables and chains that a packet between pods, nodes and the world passes; each rule is put before those above it.
_RULES: Final = (
    ("filter", "FORWARD", ("-s", CONTROL.pods, "-j", "ACCEPT")),
    ("filter", "FORWARD", ("-d", CONTROL.pods, "-j", "ACCEPT")),
    # Reject a Service's address that no rule translated: otherwise a gateway of this machine might answer for it.
    ("filter", "FORWARD", ("-d", CONTROL.services, "-j", "REJECT")),
    ("filter", "OUTPUT", ("-d", CONTROL.services, "-j", "REJECT")),
    # Pods reach the world by this machine's address, and each other and Services by their own.
    ("nat", "POSTROUTING", ("-s", CONTROL.pods, "!", "-d", "10.0.0.0/8", "-j", "MASQUERADE")),
)


def owner(layout: Layout) -> str:
    """Return the folder of the cluster that has this machine's network: this one's where there is none."""
    alias = _BRIDGES / CONTROL.bridge / "ifalias"
    return (alias.read_text().strip() if alias.exists() else "") or str(layout.folder)


def prepare_host(layout: Layout) -> None:
    """Make the control plane's bridge, and let packets of pods through; once.

    Raises:
        ClusterError: a cluster of another folder is up.
    """
    if owner(layout) != str(layout.folder):
        remedy = f"ENGINESMITH_CLUSTER_DIR={owner(layout)} hack/cluster down, or use that one"
        raise ClusterError(f"the cluster of {owner(layout)} is up on this machine", remedy=remedy)
    attempt(["modprobe", "--all", "br_netfilter", "overlay"])
    before = layout.data / "machine_settings.json"
    if not before.exists():
        found = {name: path.read_text().strip() for name in _SETTINGS if (path := _setting(name)).exists()}
        before.write_text(json.dumps(found, indent=2))
    for name, value in _SETTINGS.items():
        if value is not None and _setting(name).exists():
            _setting(name).write_text(value)
    make_bridge(CONTROL.bridge, CONTROL.host, CONTROL.prefix_length)
    run(["ip", "link", "set", CONTROL.bridge, "alias", layout.folder])
    # A machine without a default route must have a way to a Service's address before that is translated.
    if not attempt(["ip", "route", "get", CONTROL.api_service]):
        run(["ip", "route", "add", CONTROL.services, "dev", CONTROL.bridge])
    for table, chain, rule in _RULES:
        words = [chain, *rule, "-m", "comment", "--comment", _COMMENT]
        if not attempt(["iptables", "-t", table, "-C", *words]):
            run(["iptables", "-t", table, "-I", *words])


def restore_host(layout: Layout) -> None:
    """Take back what `prepare_host`, kube-proxy and kubelet did to this machine's network and kernel settings."""
    for program in _PROGRAMS:
        _drop_rules(program)
    delete_bridge(CONTROL.bridge)
    before = layout.data / "machine_settings.json"
    if before.exists():
        for name, value in json.loads(before.read_text()).items():
            # Some are no concern of a network namespace, and may not be written in one.
            if _setting(name).read_text().strip() != value:
                _setting(name).write_text(value)


def our_rules() -> list[str]:
    """Return the packet filter's rules and chains that the cluster has added."""
    return [line for name in _PROGRAMS for line in run([f"{name}-save"]).splitlines() if _is_ours(line)]


def make_bridge(name: str, address: str, prefix_length: int) -> None:
    """Make a bridge with this machine's address on it, once."""
    if not (_BRIDGES / name).exists():
        run(["ip", "link", "add", name, "type", "bridge"])
        run(["ip", "address", "add", f"{address}/{prefix_length}", "dev", name])
    run(["ip", "link", "set", name, "up"])


def delete_bridge(name: str) -> None:
    """Delete a bridge, if there is one."""
    if (_BRIDGES / name).exists():
        run(["ip", "link", "delete", name])


def _drop_rules(program: str) -> None:
    """Rewrite the tables without our rules and without those of kubelet, kube-proxy and the CNI plugins."""
    saved = run([f"{program}-save"])
    kept = [line for line in saved.splitlines() if not _is_ours(line)]
    if kept != saved.splitlines():
        run([f"{program}-restore"], stdin="\n".join([*kept, ""]))


def _is_ours(line: str) -> bool:
    return _COMMENT in line or any(f"{before}{prefix}" in line for before in (":", " ") for prefix in ("KUBE-", "CNI-"))


def _setting(name: str) -> Path:
    return Path("/proc/sys", name)
