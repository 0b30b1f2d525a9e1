"""An OCI registry and an S3 server, that nodes, pods and this machine reach at one address."""

import secrets
from typing import Final

from development_cluster import daemons
from development_cluster.daemons import Daemon
from development_cluster.files import write_json
from development_cluster.http_probe import answers
from development_cluster.layout import CONTROL, Layout
from development_cluster.programs import tool

__all__ = ["BUCKET", "LOCAL_SERVICES", "start_registry", "start_s3"]

LOCAL_SERVICES: Final = ("registry", "versitygw")
BUCKET: Final = "engines"

_USER = "enginesmith"
_REGION = "us-east-1"


def start_registry(layout: Layout) -> None:
    """Bring up the registry; what is pushed to it outlives the cluster, so that images are built once."""
    storage = layout.cache / "registry"
    storage.mkdir(parents=True, exist_ok=True)
    settings = layout.settings / "registry.json"
    write_json(
        settings,
        {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
            "http": {"addr": CONTROL.registry},
        },
    )
    # It reports each request to a collector unless told otherwise.
    quiet = {"OTEL_TRACES_EXPORTER": "none"}
    daemons.start(layout, Daemon(name="registry", command=[tool("registry"), "serve", settings], environment=quiet))
    daemons.wait_until(layout, "registry", lambda: answers(f"http://{CONTROL.registry}/v2/"), what="answering")


def start_s3(layout: Layout) -> None:
    """Bring up the S3 server with one account and an empty bucket."""
    if not layout.s3_credentials.exists():
        layout.s3_credentials.write_text(
            f"AWS_ACCESS_KEY_ID={_USER}\nAWS_SECRET_ACCESS_KEY={secrets.token_hex(16)}\n"
            f"AWS_ENDPOINT_URL={CONTROL.s3_url}\nAWS_REGION={_REGION}\n"
        )
        layout.s3_credentials.chmod(0o600)
    account = dict(line.split("=", 1) for line in layout.s3_credentials.read_text().splitlines())
    buckets = layout.data / "s3"
    (buckets / BUCKET).mkdir(parents=True, exist_ok=True)
    daemons.start(
        layout,
        Daemon(
            name="versitygw",
            command=[
                tool("versitygw"),
                *("--port", f"{CONTROL.host}:{CONTROL.s3_port}", "--region", _REGION, "--health", "/health"),
                *("posix", buckets),
            ],
            environment={
                "ROOT_ACCESS_KEY": account["AWS_ACCESS_KEY_ID"],
                "ROOT_SECRET_KEY": account["AWS_SECRET_ACCESS_KEY"],
            },
        ),
    )
    daemons.wait_until(layout, "versitygw", lambda: answers(f"{CONTROL.s3_url}/health"), what="answering")
