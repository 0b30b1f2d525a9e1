"""etcd, API server, controller manager and scheduler, as processes of this machine."""

from functools import partial
from pathlib import Path
from typing import Final

from development_cluster import daemons
from development_cluster.certificates import client_kubeconfig, make_authority, make_certificate, make_signing_key
from development_cluster.daemons import URGENT, Daemon
from development_cluster.files import write_text
from development_cluster.http_probe import answers
from development_cluster.layout import CONTROL, Layout
from development_cluster.programs import link_program, tool

__all__ = ["CONTROL_PLANE", "start_api_server", "start_controllers"]

CONTROL_PLANE: Final = ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")

_ETCD_CLIENTS = "http://127.0.0.1:23790"
_ETCD_PEERS = "http://127.0.0.1:23800"


def start_api_server(layout: Layout) -> None:
    """Bring up etcd and the API server, and write the administrator's kubeconfig."""
    make_authority(layout)
    make_signing_key(layout.certificates / "service-accounts.key")
    daemons.start(layout, _etcd(layout))
    daemons.wait_until(layout, "etcd", lambda: answers(f"{_ETCD_CLIENTS}/health"), what="answering")
    daemons.start(layout, _api_server(layout))
    kubeconfig = client_kubeconfig(layout, "admin", user="admin", group="system:masters")
    write_text(layout.kubeconfig, kubeconfig.read_text())
    layout.kubeconfig.chmod(0o600)
    link_program(layout, "kubectl")
    daemons.wait_until(
        layout,
        "kube-apiserver",
        lambda: answers(f"{CONTROL.api_url}/readyz", authority=layout.certificates / "ca.crt"),
        what="ready",
    )


def start_controllers(layout: Layout) -> None:
    """Bring up the controller manager and the scheduler."""
    for daemon in (_controller_manager(layout), _scheduler(layout)):
        daemons.start(layout, daemon)
    for name, port in (("kube-controller-manager", 10257), ("kube-scheduler", 10259)):
        healthy = partial(answers, f"https://127.0.0.1:{port}/healthz", any_certificate=True)
        daemons.wait_until(layout, name, healthy, what="healthy")


def _etcd(layout: Layout) -> Daemon:
    return Daemon(
        name="etcd",
        priority=URGENT,
        command=[
            tool("etcd"),
            f"--data-dir={layout.data / 'etcd'}",
            f"--listen-client-urls={_ETCD_CLIENTS}",
            f"--advertise-client-urls={_ETCD_CLIENTS}",
            f"--listen-peer-urls={_ETCD_PEERS}",
            f"--initial-advertise-peer-urls={_ETCD_PEERS}",
            f"--initial-cluster=default={_ETCD_PEERS}",
            # Nothing here is worth a disk's pace: the cluster ends with the machine.
            "--unsafe-no-fsync",
            "--quota-backend-bytes=4294967296",
        ],
    )


def _api_server(layout: Layout) -> Daemon:
    certificates = layout.certificates
    hosts = [
        "kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{CONTROL.domain}",
        "localhost", "127.0.0.1", CONTROL.host, CONTROL.api_service,
    ]  # fmt: skip
    certificate, key = make_certificate(layout, "apiserver", user="kube-apiserver", hosts=hosts)
    client, client_key = make_certificate(
        layout, "apiserver-client", user="kube-apiserver-client", group="system:masters"
    )
    return Daemon(
        name="kube-apiserver",
        priority=URGENT,
        command=[
            tool("kube-apiserver"),
            f"--bind-address={CONTROL.host}",
            f"--advertise-address={CONTROL.host}",
            f"--secure-port={CONTROL.api_port}",
            f"--etcd-servers={_ETCD_CLIENTS}",
            f"--service-cluster-ip-range={CONTROL.services}",
            f"--client-ca-file={certificates / 'ca.crt'}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--kubelet-certificate-authority={certificates / 'ca.crt'}",
            f"--kubelet-client-certificate={client}",
            f"--kubelet-client-key={client_key}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer=https://kubernetes.default.svc.{CONTROL.domain}",
            f"--service-account-key-file={certificates / 'service-accounts.key'}",
            f"--service-account-signing-key-file={certificates / 'service-accounts.key'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
            "--allow-privileged=true",
            f"--audit-policy-file={Path(__file__).parent / 'data' / 'audit-policy.yaml'}",
            f"--audit-log-path={layout.audit_log}",
            "--audit-log-maxsize=200",
            "--audit-log-maxbackup=3",
        ],
    )


def _controller_manager(layout: Layout) -> Daemon:
    certificates = layout.certificates
    kubeconfig = client_kubeconfig(layout, "kube-controller-manager", user="system:kube-controller-manager")
    return Daemon(
        name="kube-controller-manager",
        priority=URGENT,
        command=[
            tool("kube-controller-manager"),
            f"--kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--authentication-skip-lookup",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={certificates / 'service-accounts.key'}",
            f"--root-ca-file={certificates / 'ca.crt'}",
            f"--cluster-signing-cert-file={certificates / 'ca.crt'}",
            f"--cluster-signing-key-file={certificates / 'ca.key'}",
            # A node that is gone is noticed in seconds, as in tuned production clusters.
            "--node-monitor-period=2s",
            "--node-monitor-grace-period=16s",
            # One processor for all: a thousand Jobs at once must not starve the API server.
            "--kube-api-qps=100",
            "--kube-api-burst=200",
            # A controller that read an old version tries again, each time later, up to a quarter of an hour; on a
            # machine as slow as this, with thousands of objects, it often did.
            "--feature-gates=StaleControllerConsistencyReplicaSet=false,StaleControllerConsistencyJob=false",
        ],
    )


def _scheduler(layout: Layout) -> Daemon:
    return Daemon(
        name="kube-scheduler",
        priority=URGENT,
        command=[
            tool("kube-scheduler"),
            f"--kubeconfig={client_kubeconfig(layout, 'kube-scheduler', user='system:kube-scheduler')}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        ],
    )
