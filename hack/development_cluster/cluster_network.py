"""Services and names: kube-proxy and CoreDNS, once for all nodes, since these share this machine's network."""

from typing import Final

from development_cluster import daemons
from development_cluster.certificates import client_kubeconfig
from development_cluster.daemons import URGENT, Daemon
from development_cluster.files import write_json, write_text
from development_cluster.http_probe import answers
from development_cluster.layout import CONTROL, Layout
from development_cluster.node_specs import NODES
from development_cluster.programs import tool

__all__ = ["CLUSTER_NETWORK", "start_dns", "start_service_proxy"]

CLUSTER_NETWORK: Final = ("coredns", "kube-proxy")

_PROXY_HEALTH = f"{CONTROL.host}:10256"
_DNS_HEALTH = f"{CONTROL.host}:8181"


def start_service_proxy(layout: Layout) -> None:
    """Bring up kube-proxy."""
    kubeconfig = client_kubeconfig(layout, "kube-proxy", user="system:kube-proxy")
    settings = layout.settings / "kube-proxy.json"
    write_json(
        settings,
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": CONTROL.pods,
            "hostnameOverride": NODES[0].name,
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "healthzBindAddress": _PROXY_HEALTH,
            "metricsBindAddress": f"{CONTROL.host}:10249",
            # The machine's limits on connections stay its owner's.
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            # A changed Service shows within a second; a thousand of them do not take the processor.
            "iptables": {"minSyncPeriod": "1s"},
        },
    )
    daemons.start(
        layout, Daemon(name="kube-proxy", priority=URGENT, command=[tool("kube-proxy"), f"--config={settings}"])
    )
    daemons.wait_until(layout, "kube-proxy", lambda: answers(f"http://{_PROXY_HEALTH}/healthz"), what="healthy")


def start_dns(layout: Layout) -> None:
    """Bring up CoreDNS, where every kubelet's clusterDNS points."""
    kubeconfig = client_kubeconfig(layout, "coredns", user="coredns", group="system:masters")
    settings = layout.settings / "Corefile"
    write_text(settings, _COREFILE.format(control=CONTROL, kubeconfig=kubeconfig, ready=_DNS_HEALTH))
    daemons.start(layout, Daemon(name="coredns", command=[tool("coredns"), "-conf", settings]))
    daemons.wait_until(layout, "coredns", lambda: answers(f"http://{_DNS_HEALTH}/ready"), what="ready")


_COREFILE = """\
.:53 {{
    bind {control.host}
    errors
    ready {ready}
    kubernetes {control.domain} in-addr.arpa {{
        kubeconfig {kubeconfig}
        fallthrough in-addr.arpa
        ttl 5
    }}
    forward . /etc/resolv.conf
    cache 5
}}
"""
