"""How this process reaches the API server: the pod's ServiceAccount, else a kubeconfig.

One reading serves our own requests and kopf's watches. A bound ServiceAccount token is rotated hourly by kubelet; the
client reads the file again every minute, and kopf is asked to log in again every ten.
"""

import os
from datetime import UTC, datetime, timedelta
from typing import Final

import kopf
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from enginesmith_contract.text import one_line
from enginesmith_operator.cluster.errors import ClusterError

__all__ = ["connect", "kopf_connection"]

_LOGIN_LIFETIME: Final = timedelta(minutes=10)
_TOKEN: Final = "BearerToken"  # noqa: S105 - the client's name for the place of a token, not a token


async def connect() -> Configuration:
    """Return the connection of this pod, or of the kubeconfig that KUBECONFIG or the default path names.

    Raises:
        enginesmith_operator.cluster.errors.ClusterError: there is neither, or it cannot be read.
    """
    found = Configuration()
    try:
        config.load_incluster_config(client_configuration=found)
    except config.ConfigException:
        try:
            # The client's own default was read when it was imported.
            path = os.environ.get("KUBECONFIG") or None
            await config.load_kube_config(config_file=path, client_configuration=found, persist_config=False)
        except (config.ConfigException, OSError) as error:
            raise ClusterError(
                "there is no configuration for the API server",
                why=one_line(str(error)),
                remedy="run in a pod with a ServiceAccount, or set KUBECONFIG",
                reason="NoConnection",
            ) from error
    return found


async def kopf_connection(now: datetime | None = None) -> kopf.ConnectionInfo:
    """Return the same connection in kopf's terms, to be renewed before a token can expire."""
    found = await connect()
    scheme, _, token = str(found.api_key.get(_TOKEN, "")).partition(" ")
    return kopf.ConnectionInfo(
        server=found.host,
        ca_path=found.ssl_ca_cert,
        insecure=not found.verify_ssl,
        username=found.username,
        password=found.password,
        scheme=scheme.capitalize() or None,
        token=token or None,
        certificate_path=found.cert_file,
        private_key_path=found.key_file,
        expiration=(now or datetime.now(UTC)) + _LOGIN_LIFETIME,
    )
