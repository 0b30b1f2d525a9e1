"""The development cluster, as tests reach it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from s3fs import S3FileSystem

__all__ = ["Cluster"]

_UPLOAD = Path(__file__).resolve().parents[2] / "examples" / "cluster" / "upload.py"
_PATIENCE_SECONDS: Final = 300.0


_NOT_TAKEN: Final = "TLS handshake timeout"
"""Of a request that the API server never saw: this machine stood still for ten seconds."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The development cluster, as an administrator reaches it.

    Attributes:
        environment: the variables of `hack/cluster env`.
    """

    environment: dict[str, str]

    @property
    def registry(self) -> str:
        """Host and port of the registry that nodes pull from (plain HTTP)."""
        return self.environment["ENGINESMITH_REGISTRY"]

    @property
    def audit_log(self) -> Path:
        """One JSON object a line."""
        return Path(self.environment["ENGINESMITH_AUDIT_LOG"])

    @property
    def s3(self) -> dict[str, str]:
        """The S3 account and endpoint, as the variables that clients read."""
        text = Path(self.environment["ENGINESMITH_S3_ACCOUNT"]).read_text()
        return dict(line.split("=", 1) for line in text.splitlines())

    def files(self) -> S3FileSystem:
        """Return the S3 server's buckets."""
        account = self.s3
        return S3FileSystem(
            key=account["AWS_ACCESS_KEY_ID"],
            secret=account["AWS_SECRET_ACCESS_KEY"],
            endpoint_url=account["AWS_ENDPOINT_URL"],
        )

    def define_kinds(self) -> None:
        """Install the product's kinds, or bring them up to date."""
        folder = Path(__file__).parents[2] / "crds"
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(folder))

    def until_defined(self, *names: str) -> None:
        """Wait until the API server serves the kinds of these definitions.

        `kubectl wait` fails where a definition has no conditions yet.
        """
        for name in names:
            until = time.monotonic() + _PATIENCE_SECONDS
            while not any(
                one["type"] == "Established" and one["status"] == "True"
                for one in self.get(f"crd/{name}").get("status", {}).get("conditions") or ()
            ):
                assert time.monotonic() < until, f"{name} is not served after {_PATIENCE_SECONDS:g} s"
                time.sleep(0.2)

    def until_allowed(self, user: str, verb: str, resource: str, namespace: str) -> None:
        """Wait until a user may do something: the API server hears of a new binding a moment later."""
        asked = ("kubectl", "auth", "can-i", verb, resource, "-n", namespace, f"--as={user}")
        until = time.monotonic() + _PATIENCE_SECONDS
        while self.run(*asked).returncode:
            assert time.monotonic() < until, f"{user} may not {verb} {resource} after {_PATIENCE_SECONDS:g} s"
            time.sleep(0.2)

    def run(
        self, *command: str | Path, stdin: str | None = None, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program with the cluster's variables and `variables`, and let the test look at how it ended."""
        known = {**os.environ, **self.environment, **(variables or {})}
        return subprocess.run(command, input=stdin, env=known, capture_output=True, text=True, check=False)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it prints; fail the test where it fails."""
        done = self.run("kubectl", *arguments, stdin=stdin)
        until = time.monotonic() + _PATIENCE_SECONDS
        while _NOT_TAKEN in done.stderr and done.returncode and time.monotonic() < until:
            done = self.run("kubectl", *arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def apply(self, *documents: Mapping[str, object]) -> None:
        """Apply objects on the server's side."""
        self.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(map(dict, documents)))

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return an object, or a list of them."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o=json"))
        return found

    def upload(self, file: Path, uri: str) -> None:
        """Put a file into a bucket of the S3 server; `uri` is `s3://bucket/path`."""
        done = self.run(sys.executable, _UPLOAD, file, uri, variables=self.s3)
        assert done.returncode == 0, done.stderr
